//! Small computers: no thread, little stack, and a whole job all the same. The job runs in a process of
//! its own, and its server in this one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ffi::OsString, fs, process::Command, thread};

use crate::networks::{FILM, respond_alone, save};
use crate::support::{Folder, Server, builder, child, child_output, child_task, in_shell, refusal};

/// In debug code; release code needs a quarter.
const STACK: usize = 256 * 1024;

/// The whole API, whose first poll fails.
fn site() -> Server {
    Server::start(|request, n| match n % 4 {
        1 => refusal(503, "Busy"),
        _ => respond_alone(request),
    })
}

/// This program again, to do a task with a whole job. It knows the server by name, so that each
/// connection asks the resolver.
fn child_with(task: &str, server: &Server) -> Command {
    let base_url = format!("http://localhost:{}/v2", server.address().port());
    let test = "small_computers::a_whole_job_starts_no_thread_and_fits_into_a_small_stack";
    child(test, &format!("{task} {base_url}"))
}

fn job(base_url: &str) {
    assert_eq!(save(&builder(base_url).build().unwrap()).unwrap(), FILM);
}

/// All threads that this process has while `job` runs, looked at again and again.
fn threads(job: impl FnOnce()) -> BTreeSet<OsString> {
    let is_done = AtomicBool::new(false);
    let look = || {
        let mut seen = BTreeSet::new();
        loop {
            let is_last = is_done.load(Ordering::SeqCst);
            let tasks = fs::read_dir("/proc/self/task").unwrap();
            seen.extend(tasks.map(|task| task.unwrap().file_name()));
            if is_last {
                return seen;
            }
        }
    };
    thread::scope(|scope| {
        let seen = scope.spawn(look);
        job();
        is_done.store(true, Ordering::SeqCst);
        seen.join().unwrap()
    })
}

#[test]
fn a_whole_job_starts_no_thread_and_fits_into_a_small_stack() {
    let Some(task) = child_task() else {
        for (task, requests) in [("count", 80), ("stack", 4)] {
            let server = site();
            child_output(child_with(task, &server));
            assert_eq!(server.requests().len(), requests, "{task}");
        }
        return;
    };
    let (task, base_url) = task.split_once(' ').unwrap();
    match task {
        "count" => {
            let known = threads(|| {});
            let seen = threads(|| (0..20).for_each(|_| job(base_url)));
            // The one that looks at them. The one before may still be there.
            assert_eq!(seen.difference(&known).count(), 1, "{known:?} {seen:?}");
        }
        "refuse" => {
            let refused = thread::Builder::new().spawn(|| {});
            assert!(refused.is_err(), "threads can be started");
            job(base_url);
        }
        _ => thread::scope(|scope| {
            let small = thread::Builder::new().stack_size(STACK);
            small.spawn_scoped(scope, || job(base_url)).unwrap();
        }),
    }
}

/// The limit of processes does not hold for root, who becomes somebody else here, and runs a copy of
/// this program where everybody can.
#[test]
fn a_whole_job_runs_where_no_thread_can_be_started() {
    let (server, folder) = (site(), Folder::new());
    let id = Command::new("id").arg("-u").output().unwrap();
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups sh";
    let shell = if id.stdout == b"0\n" { nobody } else { "sh" };
    let shell: Vec<&str> = shell.split(' ').collect();
    let (test, copy) = (child_with("refuse", &server), folder.path("test"));
    // A file that this process writes may be busy.
    let mut cp = Command::new("cp");
    let copied = cp.arg(test.get_program()).arg(&copy).status();
    assert!(copied.unwrap().success());
    // In the place of this program.
    let limit = "prlimit --pid $$ --nproc=0 || exit 77; shift; set -- \"$0\" \"$@\"";
    let mut limited = in_shell(&shell, limit, &copy, &test);
    match limited.status().map(|status| status.code()) {
        Ok(Some(0)) => assert_eq!(server.requests().len(), 4),
        Ok(Some(77)) | Err(_) => eprintln!("left out: {shell:?} or prlimit does not work here"),
        failed => panic!("{failed:?}"),
    }
}
