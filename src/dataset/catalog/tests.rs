//! Tests of the catalog, alone and over several ranks.

use super::*;
use crate::comm::{SingleRank, Threads};
use crate::data::files::list::list_files;
use crate::data::{ColumnSpec, ColumnType, ColumnValues, ColumnWriter};

fn write(path: &Path, rows: usize, value: f32) {
    let specs = [ColumnSpec::new("size", ColumnType::F32, Some("p.e."))];
    let mut writer = ColumnWriter::create(path, "events", &specs, false).unwrap();
    writer.append(&[ColumnValues::F32(&vec![value; rows])]).unwrap();
    writer.finish(&[]).unwrap();
}

#[test]
fn inputs_are_listed_in_a_fixed_order() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_path_buf();
    write(&root.join("b/2.h5"), 5, 1.0);
    write(&root.join("b/1.hdf5"), 3, 2.0);
    write(&root.join("a.HDF"), 7, 3.0);
    std::fs::write(root.join("notes.txt"), "x").unwrap();
    std::fs::write(root.join("c.h5.part"), "x").unwrap();
    let names = |path: PathBuf| -> Vec<String> {
        let files = list_files(&[path]).unwrap();
        let relative = files.iter().map(|f| f.strip_prefix(&root).unwrap().display().to_string());
        relative.collect()
    };
    assert_eq!(names(root.clone()), ["a.HDF", "b/1.hdf5", "b/2.h5"]);
    assert_eq!(names(root.join("b/?.h*")), ["b/1.hdf5", "b/2.h5"]);
    assert_eq!(names(root.join("*")).len(), 5);
    std::fs::write(root.join("list"), "# two\n\nb/2.h5\n a.HDF \n").unwrap();
    let list = PathBuf::from(format!("@{}", root.join("list").display()));
    assert_eq!(names(list), ["b/2.h5", "a.HDF"]);
    let refused = |path: PathBuf| list_files(&[path]).unwrap_err().to_string();
    assert!(refused(root.join("z*.h5")).contains("no file fits"));
    assert!(refused(PathBuf::from("@nowhere")).contains("file not found"));
    std::fs::write(root.join("loop"), "@loop\n").unwrap();
    let list = PathBuf::from(format!("@{}", root.join("loop").display()));
    assert!(refused(list).contains("a list within a list"));
}

#[test]
fn existing_name_like_a_pattern_is_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("γ [1] *.h5");
    write(&path, 3, 1.0);
    assert_eq!(list_files(std::slice::from_ref(&path)).unwrap(), [path]);
}

#[test]
fn same_file_twice_is_refused_under_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.h5"), folder.path().join("b.h5"));
    write(&a, 3, 1.0);
    std::os::unix::fs::symlink(&a, &b).unwrap();
    for paths in [[a.clone(), a.clone()], [a.clone(), b.clone()]] {
        let error = list_files(&paths).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("listed twice"), "{error}");
    }
}

#[test]
fn files_of_equal_content_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a.h5", "b.h5", "c.h5"].map(|name| folder.path().join(name));
    write(&a, 3, 1.0);
    write(&b, 3, 2.0);
    let hashes = hash_files(&SingleRank, &[&a, &b]).unwrap();
    assert_eq!(hashes[0], blake3::hash(&std::fs::read(&a).unwrap()).to_hex().to_string());
    std::fs::copy(&a, &c).unwrap();
    let error = hash_files(&SingleRank, &[&a, &b, &c]).unwrap_err();
    assert!(error.to_string().contains("same content"), "{error}");
}

#[test]
fn copies_are_refused_on_any_ranks_in_any_class() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a.h5", "b.h5", "c.h5"].map(|name| folder.path().join(name));
    write(&a, 3, 1.0);
    write(&b, 3, 2.0);
    std::fs::copy(&a, &c).unwrap();
    let opened = |path: &Path, class| {
        let schema = Arc::new(Schema::by_name_or_path("taiga-events").unwrap());
        Source::open(path, Some(&schema), class).unwrap().0
    };
    let (gamma, hadron) = (Some(Class::Gamma), Some(Class::Hadron));
    let different = [opened(&a, gamma), opened(&b, gamma)];
    refuse_copies(&SingleRank, &different).unwrap();
    for (class, expected) in [(gamma, "a copy of"), (hadron, "given as gammas and here as hadrons")]
    {
        let [one, other] = different.clone();
        let sources = [one, other, opened(&c, class)];
        let error = refuse_copies(&SingleRank, &sources).unwrap_err();
        assert!(error.exit_code() == 3 && error.to_string().contains(expected), "{error}");
        for outcome in Threads::run(3, |comm| refuse_copies(comm, &sources)) {
            assert_eq!(outcome.unwrap_err().to_string(), error.to_string());
        }
    }
}

#[test]
fn a_file_in_two_roles_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    write(&path, 3, 1.0);
    let paths = [path];
    let roles: [Role; 2] = [(&paths, Some(Class::Gamma)), (&paths, Some(Class::Hadron))];
    let error = sources(&SingleRank, &roles, Some("taiga-events")).unwrap_err();
    assert!(error.to_string().contains("listed twice"), "{error}");
    let found = sources(&SingleRank, &roles[..1], Some("taiga-events")).unwrap();
    assert_eq!((found[0].rows, found[0].class), (3, Some(Class::Gamma)));
}

/// Files of two roles in an order that is not that of their names.
fn many(root: &Path) -> [Vec<PathBuf>; 2] {
    let mut files = [Vec::new(), Vec::new()];
    for i in 0..23 {
        let path = root.join(format!("{:02}.h5", i * 7 % 23));
        write(&path, 1 + i, i as f32);
        files[i % 2].push(path);
    }
    files
}

#[test]
fn catalog_is_equal_on_any_ranks_reads_shared() {
    let folder = tempfile::tempdir().unwrap();
    let files = many(folder.path());
    let roles: [Role; 3] =
        [(&files[0], Some(Class::Gamma)), (&[], None), (&files[1], Some(Class::Hadron))];
    let made = |ranks: usize, schema: Option<&'static str>| {
        Threads::run(ranks, |comm| {
            let opened = std::cell::Cell::new(0);
            let look = |source: &Source, file: &mut InputFile| {
                opened.set(opened.get() + 1);
                assert_eq!(file.rows(), source.rows);
                Ok(if source.rows < 9 { "short" } else { "long" }.to_string())
            };
            let found = catalogue(comm, &roles, schema, &look)?;
            let sources: Vec<_> = found
                .sources
                .into_iter()
                .map(|s| (s.path, s.rows, s.class, s.schema.name.clone()))
                .collect();
            Ok((sources, found.said, opened.get()))
        })
    };
    let alone = made(1, Some("taiga-events")).pop().unwrap().unwrap();
    assert_eq!((alone.0.len(), alone.2), (23, 23));
    assert_eq!(alone.0[1], (files[0][1].clone(), 3, Some(Class::Gamma), "taiga-events".into()));
    // Rows of the first role are 1, 3, … 23: the fifth file is the first long one.
    assert_eq!(alone.1, [(0, "short".to_string()), (4, "long".to_string())]);
    for ranks in [2, 3, 5, 24] {
        let mut opened = 0;
        for outcome in made(ranks, Some("taiga-events")) {
            let (sources, said, count) = outcome.unwrap();
            assert_eq!((&sources, &said), (&alone.0, &alone.1), "{ranks} ranks");
            assert!(count <= 23_usize.div_ceil(ranks));
            opened += count;
        }
        assert_eq!(opened, 23);
    }
}

#[test]
fn first_bad_file_is_reported_on_any_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let files = many(folder.path()).concat();
    for bad in [22, 9, 10, 17] {
        std::fs::write(&files[bad], "not HDF5").unwrap();
    }
    let roles: [Role; 1] = [(&files, Some(Class::Gamma))];
    for ranks in [1, 2, 3, 4] {
        let outcomes = Threads::run(ranks, |comm| sources(comm, &roles, Some("taiga-events")));
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!(error.exit_code(), 3);
            let name = files[9].display().to_string();
            assert!(format!("{error}").contains(&name), "{ranks} ranks: {error}");
        }
    }
}

#[test]
fn file_seen_differently_by_a_rank_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    write(&path, 3, 1.0);
    let bytes = std::fs::metadata(&path).unwrap().len();
    let nowhere = folder.path().join("b.h5");
    let seen = |files: &[(&Path, u64)]| Threads::run(3, |comm| see_listed(comm, files));
    assert!(seen(&[(&path, bytes)]).iter().all(Result::is_ok));
    assert!(seen(&[]).iter().all(Result::is_ok));
    for files in [[(&*path, bytes), (&*path, bytes - 1)], [(&*path, bytes), (&*nowhere, 0)]] {
        for outcome in seen(&files) {
            let error = outcome.unwrap_err();
            assert_eq!(error.exit_code(), 5);
            assert!(error.to_string().contains("not the same on all ranks"), "{error}");
        }
    }
}

#[test]
fn what_is_not_there_is_named_with_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("gamma.h5"), 3, 1.0);
    let error = list_files(&[folder.path().join("gamam.h5")]).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("did you mean 'gamma.h5'?"), "{error}");
    assert_eq!(list_files(&[]).unwrap_err().exit_code(), 3);
    let empty = tempfile::tempdir().unwrap();
    let error = list_files(&[empty.path().to_path_buf()]).unwrap_err();
    assert!(error.to_string().contains("no HDF5 file"), "{error}");
}
