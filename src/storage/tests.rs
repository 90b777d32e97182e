use super::*;
use std::io::Write;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn written_file_is_complete_without_part() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/a.txt");
    write_file(&path, b"one").unwrap();
    write_file(&path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(names(path.parent().unwrap()), ["a.txt"]);
}

#[test]
fn existing_output_is_refused_unless_replaceable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    write_file(&path, b"one").unwrap();
    assert_eq!(refuse_existing(&path, false).unwrap_err().exit_code(), 2);
    assert_eq!(Staged::new(&path, false).unwrap_err().exit_code(), 2);
    assert_eq!(AppendFile::create(&path, false).unwrap_err().exit_code(), 2);
    refuse_existing(&path, true).unwrap();
    assert_eq!(Staged::new(folder.path(), true).unwrap_err().exit_code(), 2);
}

#[test]
fn irregular_output_is_refused_and_stays() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("pipe", at("to-pipe")).unwrap();
    symlink("folder", at("to-folder")).unwrap();
    symlink("nowhere", at("to-nowhere")).unwrap();
    let before = names(folder.path());
    for (name, found) in [
        ("pipe", "found a pipe"),
        ("socket", "found a socket"),
        ("folder", "found a folder"),
        ("to-pipe", "found a link to a pipe"),
        ("to-folder", "found a link to a folder"),
        ("to-nowhere", "found a link that leads nowhere"),
    ] {
        let path = at(name);
        write_file(&at("from"), b"1").unwrap();
        let refusals = [
            refuse_existing(&path, true),
            write_file(&path, b"1"),
            write_if_changed(&path, b""),
            Staged::new(&path, true).map(drop),
            StagedFile::create(&path, true).map(drop),
            AppendFile::create(&path, true).map(drop),
            AppendFile::resume(&path).map(drop),
            NoteFile::create(&path).map(drop),
            move_to(&at("from"), &path),
        ];
        for (i, refusal) in refusals.into_iter().enumerate() {
            let error = refusal.unwrap_err();
            assert_eq!(error.exit_code(), 2, "{i}: {error}");
            assert!(error.to_string().contains(found), "{i}: {error}");
        }
        remove_file(&at("from")).unwrap();
        assert_eq!(names(folder.path()), before);
    }
    assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
    // An irregular file that appears meanwhile.
    let staged = Staged::new(&at("late"), true).unwrap();
    fs::write(staged.part(), "1").unwrap();
    fs::create_dir(at("late")).unwrap();
    assert_eq!(staged.commit().unwrap_err().exit_code(), 2);
}

#[test]
fn link_to_a_file_is_replaced_target_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (link, target) = (folder.path().join("link"), folder.path().join("target"));
    write_file(&target, b"old").unwrap();
    std::os::unix::fs::symlink("target", &link).unwrap();
    assert_eq!(refuse_existing(&link, false).unwrap_err().exit_code(), 2);
    write_file(&link, b"new").unwrap();
    assert_eq!(
        (fs::read(&link).unwrap(), fs::read(&target).unwrap()),
        (b"new".to_vec(), b"old".to_vec())
    );
    assert!(!link.is_symlink());
}

#[test]
fn dropped_stage_leaves_only_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    write_file(&path, b"old").unwrap();
    let staged = Staged::new(&path, true).unwrap();
    fs::write(staged.part(), b"half").unwrap();
    drop(staged);
    assert_eq!(names(folder.path()), ["a.txt"]);
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

#[test]
fn torn_last_line_is_cut_off_on_resume() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    let mut file = AppendFile::create(&path, false).unwrap();
    file.append_line("first").unwrap();
    file.append_line("second").unwrap();
    drop(file);
    for torn in ["x".repeat(200_000), String::new(), "half".to_string()] {
        let mut bytes = b"first\nsecond\n".to_vec();
        bytes.extend(torn.as_bytes());
        fs::write(&path, &bytes).unwrap();
        AppendFile::resume(&path).unwrap().append_line("third").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first\nsecond\nthird\n");
    }
    fs::write(&path, "only half").unwrap();
    AppendFile::resume(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn resuming_an_absent_file_creates_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger/1-of-2.jsonl");
    AppendFile::resume(&path).unwrap().append_line("first").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "first\n");
    let error = AppendFile::resume(&path).unwrap().append_line("a\nb").unwrap_err();
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn folder_is_published_and_removed_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("step-10");
    let part = part_path(&target);
    create_folder(&part.join("inner")).unwrap();
    write_file(&part.join("inner/a"), b"1").unwrap();
    publish_folder(&part, &target).unwrap();
    assert_eq!(names(folder.path()), ["step-10"]);
    create_folder(&part).unwrap();
    assert_eq!(publish_folder(&part, &target).unwrap_err().exit_code(), 2);
    remove_folder(&target).unwrap();
    remove_folder(&target).unwrap();
    assert_eq!(names(folder.path()), ["step-10.part"]);
}

#[test]
fn only_unused_new_folders_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (there, deep) = (folder.path().join("there"), folder.path().join("there/a/b/c"));
    create_folder(&there).unwrap();
    assert_eq!(outermost_missing(&there), None);
    let outermost = outermost_missing(&deep).unwrap();
    assert_eq!(outermost, there.join("a"));
    create_folder(&deep).unwrap();
    remove_if_empty(&deep, &outermost);
    assert!(there.is_dir() && !outermost.exists());
    // Only half of them were created.
    create_folder(&there.join("a/b")).unwrap();
    remove_if_empty(&deep, &outermost);
    assert!(there.is_dir() && !outermost.exists());
    create_folder(&deep).unwrap();
    write_file(&there.join("a/kept"), b"1").unwrap();
    remove_if_empty(&deep, &outermost);
    assert_eq!(names(&outermost), ["kept"]);
    assert_eq!(outermost_missing(Path::new("no-such/folder")), Some("no-such".into()));
}

#[test]
fn disk_error_names_path_operation_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let error = write_file(&folder.path().join("file/below"), b"").unwrap_err();
    assert_eq!(error.exit_code(), 5);
    let text = error.to_string();
    assert!(text.contains("create the folder") && text.contains("file"), "{text}");
    // A device that is always full.
    let error = perform("write", Path::new("/dev/full"), || {
        fs::OpenOptions::new().write(true).open("/dev/full")?.write_all(b"x")
    });
    let text = error.unwrap_err().to_string();
    assert!(text.contains("disk full") && text.contains("/dev/full"), "{text}");
}

/// Makes every operation of `action` fail in turn, with every kind of fault, until one run
/// succeeds; `check` examines the remains of each.
fn inject_faults(action: impl Fn(&Path) -> Result<()>, check: impl Fn(&Path, bool)) {
    for kind in faults::KINDS {
        for n in 0.. {
            let folder = faults::memory_folder();
            write_file(&folder.path().join("a"), b"old").unwrap();
            let (outcome, struck) = faults::with_fault(n, kind, || action(folder.path()));
            assert!(struck || outcome.is_ok(), "{kind:?} {n}: {outcome:?}");
            check(folder.path(), outcome.is_ok());
            action(folder.path()).unwrap();
            check(folder.path(), true);
            if !struck {
                assert!(n > 3, "only {n} operations");
                break;
            }
        }
    }
}

#[test]
fn failed_write_leaves_old_or_new_file() {
    let new = [7; 1000];
    inject_faults(
        |folder| write_file(&folder.join("a"), &new),
        |folder, whole| {
            let found = fs::read(folder.join("a")).unwrap();
            assert!(found == new || (!whole && found == b"old"), "{} bytes", found.len());
        },
    );
    inject_faults(
        |folder| write_file(&folder.join("deep/er/b"), &new),
        |folder, whole| {
            let found = fs::read(folder.join("deep/er/b"));
            assert!(found.map_or(!whole, |found| found == new));
        },
    );
}

#[test]
fn failed_append_leaves_whole_lines_on_resume() {
    let lines = ["first", "second", "third"];
    for kind in faults::KINDS {
        for n in 0.. {
            let folder = faults::memory_folder();
            let path = folder.path().join("log");
            let append = || {
                let mut file = AppendFile::resume(&path)?;
                lines.iter().try_for_each(|line| file.append_line(line))
            };
            let (outcome, struck) = faults::with_fault(n, kind, append);
            drop(AppendFile::resume(&path).unwrap());
            let text = fs::read_to_string(&path).unwrap();
            let found: Vec<&str> = text.lines().collect();
            assert!(text.is_empty() || text.ends_with('\n'), "{kind:?} {n}: {text:?}");
            assert_eq!(found, lines[..found.len()], "{kind:?} {n}");
            assert!(outcome.is_err() || found.len() == 3, "{kind:?} {n}: {text:?}");
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn full_disk_is_reported_with_needed_space() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let write = || write_file(&path, &[1; 12345]);
    let (outcome, _) = faults::with_fault(0, faults::FaultKind::Full, write);
    let error = outcome.unwrap_err();
    assert_eq!(error.exit_code(), 5);
    let text = error.to_string();
    for part in ["disk full", "/a.", ".part", "room for 12345 bytes", "No space left"] {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}
