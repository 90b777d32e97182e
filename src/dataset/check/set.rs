//! Findings on a set of valid files: duplicate events, exchanged or overlapping classes, different
//! columns, and hadrons whose source positions differ from those of the gammas.

use super::super::classes::{self, MOST_REPEATED};
use super::super::duplicates;
use super::super::source::Source;
use super::FEATURES;
use super::keys::{Duplicates, Keyed, duplicates};
use super::report::{ColumnReport, FileReport, SetFinding};
use super::tally::SourceOffsets;
use crate::config::{Class, Feature, Transform};
use crate::data::files::stamp::{Stamp, hash_file};
use crate::data::selection::Selection;
use crate::data::table::{Block, Request, Table};
use crate::error::{Fault, Result, path_text};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Largest difference in mean or spread [deg] of the distance of the source from the centre of the
/// camera. A larger one shows different generators.
const SOURCES_DIFFER: f64 = 0.1;

/// Most files that a finding on classes names.
const NAMED: usize = 4;

/// Events that are given as gammas and as hadrons.
const OVERLAP: &str = "overlap";

/// A file of the set.
pub(crate) struct SetMember<'a> {
    pub report: &'a FileReport,
    pub role: Option<Class>,
    /// `None` if the file cannot be read.
    pub table: Option<Table>,
    pub sources: SourceOffsets,
}

/// Returns the findings on all files; compares contents and keys only if `deep`.
pub(crate) fn findings(members: &[SetMember], deep: bool) -> Vec<SetFinding> {
    let mut found = same_files(members);
    let twice: Vec<PathBuf> = found.iter().flat_map(|f| f.files.iter().skip(1).cloned()).collect();
    found.extend(differences(members));
    found.extend(source_positions(members));
    if deep {
        let fresh: Vec<&SetMember> = members
            .iter()
            .enumerate()
            .filter(|(i, m)| !twice.contains(&m.report.path) || is_first(members, *i))
            .map(|(_, member)| member)
            .collect();
        let copies = same_contents(&fresh);
        let copied: Vec<PathBuf> =
            copies.iter().flat_map(|f| f.files.iter().skip(1).cloned()).collect();
        found.extend(copies);
        let fresh: Vec<&SetMember> =
            fresh.into_iter().filter(|m| !copied.contains(&m.report.path)).collect();
        found.extend(same_events(&fresh));
    }
    found
}

fn is_first(members: &[SetMember], index: usize) -> bool {
    let place = |i: usize| Stamp::of(&members[i].report.path).map(|stamp| stamp.file());
    (0..index).all(|other| place(other) != place(index))
}

fn same_files(members: &[SetMember]) -> Vec<SetFinding> {
    let mut known: BTreeMap<(u64, u64), &SetMember> = BTreeMap::new();
    let mut found = Vec::new();
    for member in members {
        let Some(stamp) = Stamp::of(&member.report.path) else { continue };
        let Some(other) = known.get(&stamp.file()) else {
            known.insert(stamp.file(), member);
            continue;
        };
        let (one, two) = (&other.report.path, &member.report.path);
        let text = format!("{} is the same file as {}", two.display(), one.display());
        found.push(refusal(&[other, member], "same-file", text, 0));
    }
    found
}

/// Returns a finding that refuses two files; files of gammas and of hadrons overlap.
fn refusal(members: &[&SetMember], kind: &'static str, mut text: String, rows: u64) -> SetFinding {
    let roles: Vec<Class> = members.iter().filter_map(|member| class_of(member)).collect();
    let overlap = roles.len() == 2 && roles[0] != roles[1];
    if overlap {
        text += ": as gammas and as hadrons";
    }
    let files = members.iter().map(|member| member.report.path.clone()).collect();
    SetFinding { kind: if overlap { OVERLAP } else { kind }, text, files, rows, refused: true }
}

/// Returns the class of all events of a file, as given or by its class column.
fn class_of(member: &SetMember) -> Option<Class> {
    let classes = member.report.contents.as_ref().and_then(|contents| contents.classes);
    member.role.or(match classes {
        Some(counts) if counts.hadron == 0 && counts.gamma > 0 => Some(Class::Gamma),
        Some(counts) if counts.gamma == 0 && counts.hadron > 0 => Some(Class::Hadron),
        _ => None,
    })
}

/// Finds files of equal content. Only files of equal length are hashed; files without rows may be
/// equal.
fn same_contents(members: &[&SetMember]) -> Vec<SetFinding> {
    let mut by_length: BTreeMap<u64, Vec<&SetMember>> = BTreeMap::new();
    for member in members {
        let contents = member.report.contents.as_ref().filter(|contents| contents.rows > 0);
        let bytes = contents.map_or(0, |contents| contents.bytes);
        if bytes > 0 {
            by_length.entry(bytes).or_default().push(member);
        }
    }
    let mut found = Vec::new();
    for equal in by_length.values().filter(|members| members.len() > 1) {
        let mut known: BTreeMap<[u8; 32], &SetMember> = BTreeMap::new();
        for member in equal {
            let Ok(hash) = hash_file(&member.report.path) else { continue };
            let Some(other) = known.get(&hash) else {
                known.insert(hash, member);
                continue;
            };
            let rows = member.report.contents.as_ref().map_or(0, |contents| contents.rows);
            let (one, two) = (&other.report.path, &member.report.path);
            let text = format!("{} is a copy of {}", two.display(), one.display());
            found.push(refusal(&[other, member], "same-content", text, rows));
        }
    }
    found
}

fn same_events(members: &[&SetMember]) -> Vec<SetFinding> {
    let keyed = |(index, member): (usize, &&SetMember)| {
        let table = member.table.clone()?;
        let (rows, shower) = (table.event_columns(), table.shower_columns());
        Some((index, table, if rows.is_empty() { shower } else { rows }))
    };
    let tables: Vec<Keyed> = members.iter().enumerate().filter_map(keyed).collect();
    match duplicates(&tables) {
        Ok(all) => {
            all.iter().map(|duplicates| duplicate_finding(members, &tables, duplicates)).collect()
        }
        // The report of a file names a column that cannot be read.
        Err(_) => Vec::new(),
    }
}

fn duplicate_finding(
    members: &[&SetMember],
    tables: &[Keyed],
    duplicates: &Duplicates,
) -> SetFinding {
    let Duplicates { first, second, rows, example } = duplicates;
    let (one, two) = (members[*first], members[*second]);
    let columns = tables.iter().find(|(index, _, _)| index == second).map(|(_, _, c)| c.clone());
    let columns = columns.unwrap_or_default();
    // Some rows of equal text are different events of rounded values; many are copies.
    let is_text = columns.len() == 1 && columns[0] == "row_hash";
    let all = two.table.as_ref().map_or(0, Table::rows);
    let sure = !is_text || *rows as f64 > MOST_REPEATED * all as f64;
    let key: Vec<String> =
        columns.iter().zip(&example.2).map(|(name, value)| format!("{name} {value}")).collect();
    let key = key.join(", ");
    let path = two.report.path.display();
    if first == second {
        let text = format!(
            "{path}: {rows} of {all} rows repeat the key of another, such as row {} that of row {} ({key})",
            example.1, example.0
        );
        let files = vec![two.report.path.clone()];
        return SetFinding { kind: "same-events", text, files, rows: *rows, refused: sure };
    }
    let text = format!(
        "{path}: {rows} of {all} rows have keys that are in {} as well, such as row {} ({key})",
        one.report.path.display(),
        example.1
    );
    let finding = refusal(&[one, two], "same-events", text, *rows);
    if finding.kind == OVERLAP && !same_values([one, two], [example.0, example.1]) {
        let text = finding.text + ", but other values: their runs are numbered alike";
        return SetFinding { kind: "same-numbers", text, refused: false, ..finding };
    }
    SetFinding { refused: sure, ..finding }
}

/// Returns whether two rows agree in all quantities that both tables have, or cannot be read.
fn same_values(members: [&SetMember; 2], rows: [u64; 2]) -> bool {
    let [Some(one), Some(two)] = members.map(|member| member.table.as_ref()) else { return true };
    let theirs = two.quantities();
    let quantities: Vec<String> =
        one.quantities().iter().filter(|q| theirs.contains(*q)).map(ToString::to_string).collect();
    let read = |table: &Table, row: u64| -> Option<Vec<u32>> {
        let request = Request { quantities: quantities.clone(), ..Request::default() };
        let mut block = Block::default();
        table.reader(&request).and_then(|mut r| r.read(row..row + 1, &mut block)).ok()?;
        Some(block.quantities.iter().map(|values| values[0].to_bits()).collect())
    };
    match (read(one, rows[0]), read(two, rows[1])) {
        (Some(one), Some(two)) => one == two,
        _ => true,
    }
}

/// Compares columns and units with those of the first file.
fn differences(members: &[SetMember]) -> Vec<SetFinding> {
    let readable = members.iter().filter_map(|m| Some((m, m.report.contents.as_ref()?)));
    let readable: Vec<_> = readable.collect();
    let Some(((first, contents), others)) = readable.split_first() else { return Vec::new() };
    let names = |columns: &[ColumnReport]| -> Vec<String> {
        columns.iter().map(|column| column.name.clone()).collect()
    };
    let reference = names(&contents.columns);
    let mut found = Vec::new();
    for (member, other) in others {
        let mine = names(&other.columns);
        let less: Vec<String> =
            reference.iter().filter(|name| !mine.contains(name)).cloned().collect();
        let more: Vec<String> =
            mine.iter().filter(|name| !reference.contains(name)).cloned().collect();
        let mut text = Vec::new();
        if !less.is_empty() {
            text.push(format!("lacks {}", less.join(", ")));
        }
        if !more.is_empty() {
            text.push(format!("has {} besides", more.join(", ")));
        }
        let mut add = |kind: &'static str, text: String, refused: bool| {
            let (one, two) = (&first.report.path, &member.report.path);
            let text = format!("{}: {text}, unlike {}", two.display(), one.display());
            let files = vec![one.clone(), two.clone()];
            found.push(SetFinding { kind, text, files, rows: 0, refused });
        };
        if !text.is_empty() {
            add("columns-differ", text.join(" and "), false);
        }
        for column in &other.columns {
            let known = contents.columns.iter().find(|known| known.name == column.name);
            if let Some(known) = known.filter(|known| known.unit != column.unit) {
                let text = format!("'{}' is in {}, not {}", column.name, column.unit, known.unit);
                add("units-differ", text, FEATURES.contains(&column.name.as_str()));
            }
        }
    }
    found
}

/// Compares the source positions of gammas and hadrons in the camera.
fn source_positions(members: &[SetMember]) -> Vec<SetFinding> {
    let mut by_class = [SourceOffsets::default(); 2];
    let mut files: [Vec<PathBuf>; 2] = [Vec::new(), Vec::new()];
    for member in members.iter().filter(|member| member.sources.rows > 0) {
        let Some(class) = class_of(member) else { continue };
        let slot = usize::from(class == Class::Hadron);
        by_class[slot].merge(&member.sources);
        files[slot].push(member.report.path.clone());
    }
    let [gamma, hadron] = by_class;
    let (Some(of_gamma), Some(of_hadron)) = (gamma.mean_and_spread(), hadron.mean_and_spread())
    else {
        return Vec::new();
    };
    let differ = |a: f64, b: f64| (a - b).abs() > SOURCES_DIFFER;
    if !differ(of_gamma.0, of_hadron.0) && !differ(of_gamma.1, of_hadron.1) {
        return Vec::new();
    }
    let text = format!(
        "sources of hadrons lie {:.2} ± {:.2} deg from the camera's centre, those of gammas {:.2} ± {:.2} deg: \
         a classifier would learn the generator. Convert the hadrons with --class hadron --source-offset {:.2}",
        of_hadron.0, of_hadron.1, of_gamma.0, of_gamma.1, of_gamma.0
    );
    let rows = hadron.rows;
    vec![SetFinding { kind: "source-positions", text, files: files.concat(), rows, refused: false }]
}

/// Compares gammas with hadrons as a training does, by the features of `selection` or of the default
/// model. Files that lack one of them, or a class, are not compared.
///
/// # Errors
/// Those of reading the files.
pub(crate) fn of_classes(
    members: &[&SetMember],
    selection: Option<&Selection>,
) -> Result<Vec<SetFinding>> {
    let selection = &selection.map_or_else(default_selection, |given| Ok(given.clone()))?;
    // A copy is a separate finding.
    let copies = same_contents(members);
    let is_copy = |member: &SetMember| {
        copies.iter().any(|found| found.files.iter().skip(1).any(|f| *f == member.report.path))
    };
    let comparable: Vec<Source> = members
        .iter()
        .filter(|member| !is_copy(member))
        .filter_map(|member| comparable(member, selection))
        .collect();
    let by_role = comparable.iter().any(|source| source.class.is_some());
    let inputs = if by_role { "--gamma and --hadron" } else { "the codes of the class column" };
    let found = classes::compare(&comparable, selection, inputs)?;
    let path = |source: &Source| source.path.clone();
    let finding = |kind, text, files, refused| SetFinding { kind, text, files, rows: 0, refused };
    let all = || comparable.iter().map(path).collect();
    let mut findings = Vec::new();
    if let Some((fault, files)) = found.shared {
        let files: Vec<PathBuf> = files.into_iter().map(|i| path(&comparable[i])).collect();
        let named: Vec<String> = files.iter().take(NAMED).map(|file| path_text(file)).collect();
        let found = fault.found.unwrap_or_default();
        let fault = Fault { found: Some(format!("{found}: {}", named.join(", "))), ..fault };
        findings.push(finding("shared-events", fault.to_string(), files, true));
    }
    let lack_keys = found.repeated.is_some() && duplicates::lack_event_keys(&comparable)?;
    findings.extend(found.repeated.map(|text| finding("repeated-rows", text, all(), lack_keys)));
    findings.extend(found.swapped.map(|text| finding("swapped-classes", text, all(), false)));
    Ok(findings)
}

/// Returns a selection of the features of the default model, without transforms.
fn default_selection() -> Result<Selection> {
    let features = FEATURES.map(|name| Feature {
        name: name.to_string(),
        transform: Transform::None,
        offset: 0.0,
        exponent: 0.0,
        quantum: 0.0,
    });
    Selection::new(&features, &BTreeMap::new())
}

/// Returns a file as a source if its classes can be compared.
fn comparable(member: &SetMember, selection: &Selection) -> Option<Source> {
    let table = member.table.as_ref()?;
    let known = table.quantities();
    let has_all = selection.quantities().iter().all(|name| known.contains(&name.as_str()));
    (has_all && (member.role.is_some() || table.has_class()) && table.rows() > 0).then(|| Source {
        path: member.report.path.clone(),
        schema: Arc::clone(table.schema()),
        rows: table.rows(),
        class: member.role,
        view: None,
    })
}
