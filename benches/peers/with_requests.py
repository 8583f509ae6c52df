"""Requests a generation, polls it every ten seconds, prints the response: in Python, with requests."""

import os
import sys
import time

import requests

URL = os.environ["AIMLAPI_BASE_URL"] + "/generate/video/google/generation"


def main():
    session = requests.Session()
    session.headers["Authorization"] = "Bearer " + os.environ["AIMLAPI_KEY"]
    task = {"model": "google/veo3", "prompt": "A dragon over the tallest mountain"}
    created = session.post(URL, json=task, timeout=30)
    created.raise_for_status()
    generation_id = created.json()["id"]
    print("Gen_ID: ", generation_id)

    deadline = time.monotonic() + 1000
    while time.monotonic() < deadline:
        response = session.get(URL, params={"generation_id": generation_id}, timeout=30)
        response.raise_for_status()
        generation = response.json()
        print("Status:", generation["status"])
        if generation["status"] not in ("waiting", "active", "queued", "generating"):
            print("Processing complete:\n", generation)
            return 0
        time.sleep(10)
    return 1


sys.exit(main())
