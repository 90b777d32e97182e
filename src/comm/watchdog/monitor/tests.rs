use super::super::findings::*;
use super::*;
use std::path::Path;

fn record(beat: u64, ticks: u64, entered: u64, doing: Activity) -> Record {
    Record {
        beat,
        entered,
        activity: doing,
        ticks,
        work: Work::Training,
        at: 57,
        process: 4242,
        host: "node7".to_string(),
    }
}

const TURN: Duration = Duration::from_millis(250);

fn unknown() -> ReadingOf {
    Arc::new(|_| None)
}

#[test]
fn silence_grows_only_while_file_is_unchanged() {
    let mut seen = RankHistory::default();
    seen.look(Some(record(1, 1, 1, Activity::Working)), TURN);
    assert_eq!((seen.silent, seen.idle), (Duration::ZERO, Duration::ZERO));
    for _ in 0..4 {
        seen.look(Some(record(1, 1, 1, Activity::Working)), TURN);
    }
    // A record that cannot be read is not a heartbeat, and the last one remains known.
    seen.look(None, TURN);
    assert_eq!((seen.silent, seen.idle), (5 * TURN, 5 * TURN));
    assert_eq!(seen.last.as_ref().map(|r| r.beat), Some(1));
    seen.look(Some(record(2, 1, 1, Activity::Working)), TURN);
    assert_eq!((seen.silent, seen.idle), (Duration::ZERO, 6 * TURN));
    seen.look(Some(record(3, 2, 1, Activity::Working)), TURN);
    assert_eq!(seen.idle, Duration::ZERO);
}

#[test]
fn waiting_rank_is_not_idle() {
    let mut seen = RankHistory::default();
    for beat in 0..9 {
        seen.look(Some(record(beat, 5, 7, Activity::Waiting(Collective::Reduce))), TURN);
    }
    assert_eq!((seen.silent, seen.idle, seen.waiting), (Duration::ZERO, Duration::ZERO, 8 * TURN));
    seen.look(Some(record(10, 5, 8, Activity::Waiting(Collective::Reduce))), TURN);
    assert_eq!(seen.waiting, Duration::ZERO);
    // Hours of reading, with progress in every turn.
    for beat in 11..1000 {
        seen.look(Some(record(beat, beat, 8, Activity::Working)), TURN);
    }
    assert_eq!((seen.silent, seen.idle, seen.waiting), Default::default());
}

#[test]
fn message_names_rank_host_step_and_collective() {
    let waits = record(9, 9, 1235, Activity::Waiting(Collective::Reduce));
    let gone = record(3, 3, 1234, Activity::Working);
    let error =
        missing(&[Some(&waits), None, Some(&gone)], &[2], "no heartbeat for 3.0 s", &unknown());
    let text = error.to_string();
    assert_eq!(error.exit_code(), 5);
    for part in ["rank 2 on node7", "process 4242", "step 57", "all-reduce 1235", "3.0 s"] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    let reads: ReadingOf = Arc::new(|rank| (rank == 1).then(|| "run-7.h5".to_string()));
    let text = missing(&[Some(&waits), Some(&gone)], &[1], "", &reads).to_string();
    assert!(text.contains("step 57, reading run-7.h5") && text.contains("child"), "{text}");
    let works = record(9, 9, 41, Activity::Working);
    let text = missing(&[Some(&works), Some(&gone)], &[1], "", &unknown()).to_string();
    assert!(text.contains("collective 1235"), "{text}");
}

/// Returns the monitor of rank 0 of two, in a job whose files are in `folder`.
fn monitor(folder: &Path) -> Monitor {
    Heartbeats::clear(folder).unwrap();
    Monitor {
        rank: 0,
        size: 2,
        shared: Arc::default(),
        heartbeats: Heartbeats::within(folder, 7),
        pause: Duration::from_millis(20),
        limit: Duration::from_secs(3),
        abort: |_| panic!("aborted"),
        process: 1,
        host: "node1".to_string(),
        beat: 0,
        reading: unknown(),
    }
}

/// Returns the finding of rank 0 about rank 1, whose file is written repeatedly.
fn diagnosis(
    suspect: &RankHistory,
    mine: Activity,
    other: impl Fn(u64) -> Record + Send,
) -> Option<Error> {
    let folder = tempfile::tempdir().unwrap();
    let monitor = monitor(folder.path());
    monitor.heartbeats.post(0, &record(1, 1, 5, mine)).unwrap();
    monitor.heartbeats.post(1, &other(0)).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (heartbeats, over) = (&monitor.heartbeats, &over);
        scope.spawn(move || {
            for beat in 1.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                heartbeats.post(1, &other(beat)).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let found = monitor.investigate(1, suspect);
        over.store(true, Ordering::Relaxed);
        found
    })
}

#[test]
fn only_a_live_rank_without_progress_is_stuck() {
    let idle = RankHistory { idle: Duration::from_secs(4), ..RankHistory::default() };
    let waits = Activity::Waiting(Collective::Reduce);
    let error = diagnosis(&idle, waits, |beat| record(beat, 3, 4, Activity::Working)).unwrap();
    let text = error.to_string();
    for part in ["missing from all-reduce 5", "no progress for 4.0 s of rank 1 on node7"] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert!(diagnosis(&idle, waits, |beat| record(beat, beat, 4, Activity::Working)).is_none());
    // Silent a moment ago, and alive now.
    let silent = RankHistory { silent: Duration::from_secs(4), ..RankHistory::default() };
    assert!(diagnosis(&silent, waits, |beat| record(beat, 3, 4, Activity::Working)).is_none());
    let error = diagnosis(&silent, waits, |_| record(9, 3, 4, Activity::Working)).unwrap();
    assert!(error.to_string().contains("no heartbeat for 4.0 s of rank 1"), "{error}");
    assert!(diagnosis(&silent, waits, |_| record(9, 3, 4, Activity::Left)).is_none());
}

#[test]
fn deadlock_is_reported_waiting_for_work_is_not() {
    let long = RankHistory { waiting: Duration::from_secs(4), ..RankHistory::default() };
    let (waits, gathers) =
        (Activity::Waiting(Collective::Reduce), Activity::Waiting(Collective::Gather));
    let error = diagnosis(&long, waits, |beat| record(beat, 3, 5, gathers)).unwrap();
    let text = error.to_string();
    for part in ["all ranks wait", "rank 0 on node7 in all-reduce 5", "in all-gather 5"] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    assert!(diagnosis(&long, waits, |beat| record(beat, beat, 5, Activity::Working)).is_none());
}
