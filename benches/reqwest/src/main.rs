//! Requests a generation, polls it every ten seconds, prints the response: with reqwest's blocking client.

use std::{
    env,
    error::Error,
    thread,
    time::{Duration, Instant},
};

use reqwest::blocking::Client;
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let key = env::var("AIMLAPI_KEY")?;
    let base =
        env::var("AIMLAPI_BASE_URL").unwrap_or_else(|_| "https://api.aimlapi.com/v2".to_owned());
    let url = format!("{base}/generate/video/google/generation");
    let client = Client::builder().timeout(Duration::from_secs(30)).build()?;

    let request = json!({"model": "google/veo3", "prompt": "A dragon over the tallest mountain"});
    let generation: Value = client
        .post(&url)
        .bearer_auth(&key)
        .json(&request)
        .send()?
        .error_for_status()?
        .json()?;
    let id = generation["id"].as_str().ok_or("the response has no id")?;
    println!("Gen_ID:  {id}");

    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1000) {
        let response = client
            .get(&url)
            .query(&[("generation_id", id)])
            .bearer_auth(&key)
            .send()?;
        let generation: Value = response.error_for_status()?.json()?;
        println!("Status: {}", generation["status"]);
        match generation["status"].as_str() {
            Some("waiting" | "active" | "queued" | "generating") => {
                thread::sleep(Duration::from_secs(10))
            }
            _ => {
                println!("Processing complete:\n {generation}");
                return Ok(());
            }
        }
    }
    Err("timeout reached".into())
}
