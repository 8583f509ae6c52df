//! Small computers: no thread, little stack, and a whole job all the same. The job runs in a process of
//! its own, and its server in this one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ffi::OsString, fs, io::Read, process::Command, thread, time::Duration};

use aimlapi_video::VideoRequest;
use serde_json::json;

use crate::support::{Act, Folder, Request, Server, builder, child, child_output, child_task};
use crate::support::{http, in_shell, json as json_response, queued, refusal};

const TEST: &str = "small_computers::a_whole_job_starts_no_thread";
const FILM: &[u8] = b"\0\0\0\x18ftyp a film of a fox";
/// In debug code; release code needs a quarter.
const STACK: usize = 256 * 1024;

/// An API with a poll that fails, and a file server.
fn site() -> Server {
    Server::start(|request: &Request, n| {
        let url = format!("http://{}/v.mp4", request.header("host").unwrap());
        let done = json!({"status": "completed", "video": {"url": url}});
        match n % 4 {
            0 => queued(),
            1 => refusal(503, "Busy"),
            _ if request.target.starts_with("/v2") => json_response(200, &done.to_string()),
            _ => vec![Act::Send(http(200, &[], FILM))],
        }
    })
}

/// By name, so that each connection asks the resolver.
fn base_url(server: &Server) -> String {
    format!("http://localhost:{}/v2", server.address().port())
}

fn job(base_url: &str) {
    let client = builder(base_url).build().unwrap();
    let generation = client.generate_video(&VideoRequest::new("A fox")).unwrap();
    let video = client.wait_for_video(&generation.id, |_| {}).unwrap();
    let mut film = Vec::new();
    client.open_video(&video).read_to_end(&mut film).unwrap();
    assert_eq!(film, FILM);
}

/// All threads that this process has while `job` runs, looked at again and again.
fn threads(job: impl FnOnce()) -> BTreeSet<OsString> {
    let is_done = AtomicBool::new(false);
    let look = || {
        let mut seen = BTreeSet::new();
        while !is_done.load(Ordering::SeqCst) {
            let tasks = fs::read_dir("/proc/self/task").unwrap();
            seen.extend(tasks.map(|task| task.unwrap().file_name()));
        }
        seen
    };
    thread::scope(|scope| {
        let seen = scope.spawn(look);
        job();
        is_done.store(true, Ordering::SeqCst);
        seen.join().unwrap()
    })
}

#[test]
fn a_whole_job_starts_no_thread() {
    let Some(task) = child_task() else {
        let server = site();
        child_output(child(TEST, &format!("count {}", base_url(&server))));
        assert_eq!(server.requests().len(), 80);
        return;
    };
    let (task, base_url) = task.split_once(' ').unwrap();
    match task {
        "count" => {
            let without = threads(|| thread::sleep(Duration::from_millis(20))).len();
            let with = threads(|| (0..20).for_each(|_| job(base_url))).len();
            assert_eq!(with, without);
        }
        "refuse" => {
            let refused = thread::Builder::new().spawn(|| {});
            assert!(refused.is_err(), "threads can be started");
            job(base_url);
        }
        _ => {
            let base_url = base_url.to_owned();
            let small = thread::Builder::new().stack_size(STACK);
            let job = small.spawn(move || job(&base_url));
            job.unwrap().join().unwrap();
        }
    }
}

#[test]
fn a_whole_job_fits_into_a_small_stack() {
    let server = site();
    child_output(child(TEST, &format!("stack {}", base_url(&server))));
    assert_eq!(server.requests().len(), 4);
}

/// The limit of processes does not hold for root, who becomes somebody else here.
#[test]
fn a_whole_job_runs_where_no_thread_can_be_started() {
    let (server, folder) = (site(), Folder::new());
    let id = Command::new("id").arg("-u").output().unwrap();
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups sh";
    let shell = if id.stdout == b"0\n" { nobody } else { "sh" };
    let shell: Vec<&str> = shell.split(' ').collect();
    let limit = "prlimit --pid $$ --nproc=0 || exit 77";
    let test = child(TEST, &format!("refuse {}", base_url(&server)));
    // Where everybody can run it. (A file that this process writes may be busy.)
    let program = folder.path("test");
    let mut copy = Command::new("cp");
    let copied = copy.arg(test.get_program()).arg(&program).status();
    assert!(copied.unwrap().success());
    let mut copy = Command::new(&program);
    let envs = test
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    copy.args(test.get_args()).envs(envs);
    let mut limited = in_shell(&shell, limit, &program, &copy);
    match limited.status().map(|status| status.code()) {
        Ok(Some(0)) => assert_eq!(server.requests().len(), 4),
        Ok(Some(77)) | Err(_) => eprintln!("left out: {shell:?} or prlimit does not work here"),
        failed => panic!("{failed:?}"),
    }
}
