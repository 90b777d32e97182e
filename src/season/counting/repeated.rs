//! Finds events that count more than once: the same rows in two score files, or twice in one.
//!
//! Events are compared by their keys, where one of them is an event number or a time, and by their
//! values. At most [`MOST`] events are kept: one in a power of two, selected by its keys or values
//! alone. A file given twice is therefore found at any size and on any number of ranks.

use super::event_classifier::{Keys, ScoreColumns};
use crate::data::table::scores::ScoreBlock;
use crate::dataset::classes::MOST_REPEATED;
use crate::dataset::duplicates::mixed;
use crate::error::{Fault, Result};
use crate::season::folder::ScoreFileEntry;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most events kept per file and per rank, 32 bytes each.
const MOST: usize = 1 << 20;
/// Least number of floating-point columns whose values distinguish events.
const LEAST_COLUMNS: usize = 3;

/// Event that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CountedEvent {
    /// Hash of telescope, run and keys; of the values if no key identifies events.
    name: u64,
    /// Hash of the scores at all positions and of the copied columns.
    values: u64,
    /// Index of its file in the folder.
    file: usize,
    row: u64,
}

/// Events that count, or a sample of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CountedEvents {
    /// One name in so many is kept: a power of 2.
    one_in: u64,
    events: Vec<CountedEvent>,
    /// Whether equal names with other values may be one event: not if the telescope is unknown, and
    /// not for simulated showers, which are used several times.
    are_named: bool,
}

impl Default for CountedEvents {
    fn default() -> CountedEvents {
        CountedEvents { one_in: 1, events: Vec::new(), are_named: false }
    }
}

impl CountedEvents {
    /// Adds a row of a block.
    pub(crate) fn add(
        &mut self,
        columns: &ScoreColumns,
        block: &ScoreBlock,
        row: usize,
        file_row: u64,
        telescope: Option<i64>,
    ) {
        let scores = block.at_all[columns.score].iter().map(|at| at[row]);
        let copied = block.copied.iter().map(|column| column[row]);
        let values = scores.chain(copied).map(|value| u64::from(value.to_bits())).fold(0, mixed);
        let is_keyed = columns.keys.event.or(columns.keys.time).is_some();
        let is_valued = block.at_all[columns.score].len() + block.copied.len() >= LEAST_COLUMNS;
        let Keys { run, event, time, .. } = columns.keys;
        // A run_id that is a hash of the file differs between copies.
        let of_observed = run.zip(event).zip(time).map(|((run, event), time)| [run, event, time]);
        let of_all = (0..block.keys.len()).filter(|_| of_observed.is_none());
        let naming = of_observed.into_iter().flatten().chain(of_all);
        let keys = naming.map(|key| block.keys[key][row] as u64);
        let start = telescope.map_or(0, |telescope| mixed(1, telescope as u64));
        let (name, values) = match (is_keyed, is_valued) {
            (true, true) => (keys.fold(start, mixed), values),
            (true, false) => (keys.fold(start, mixed), mixed(values, file_row)),
            (false, true) => (values, values),
            (false, false) => return,
        };
        self.are_named |= is_keyed && telescope.is_some();
        self.push(CountedEvent { name, values, file: 0, row: file_row });
    }

    fn push(&mut self, event: CountedEvent) {
        if !event.is_kept(self.one_in) {
            return;
        }
        self.events.push(event);
        while self.events.len() > MOST {
            self.thin(2 * self.one_in);
        }
    }

    fn thin(&mut self, one_in: u64) {
        self.one_in = one_in;
        self.events.retain(|event| event.is_kept(one_in));
    }

    /// Sets the index of the file of the events.
    pub(crate) fn of_file(&mut self, index: usize) {
        self.events.iter_mut().for_each(|event| event.file = index);
    }

    pub(crate) fn merge(&mut self, mut other: CountedEvents) {
        let one_in = self.one_in.max(other.one_in);
        self.thin(one_in);
        other.thin(one_in);
        self.are_named |= other.are_named;
        other.events.into_iter().for_each(|event| self.push(event));
    }

    /// Refuses events with equal keys and values, and with equal keys alone where these identify
    /// one event of a telescope. Elsewhere equal keys give a warning, and none for simulated
    /// showers. Equal values give a warning; of events without keys, more than 2 % are refused.
    ///
    /// # Errors
    /// `Input`, with the place of a duplicate.
    pub(crate) fn refuse_repeated(
        mut self,
        files: &[ScoreFileEntry],
        is_simulated: bool,
    ) -> Result<Option<String>> {
        let found = self.duplicates();
        let least = if self.one_in == 1 { "" } else { "at least " };
        let describe = |duplicates: &Duplicates| duplicates.describe(files, least);
        // Different events of rounded values may be equal, as training allows.
        let allowed = MOST_REPEATED * self.events.len() as f64;
        let are_copies = found.without_keys.count as f64 > allowed;
        let name_one_event = self.are_named && !is_simulated;
        let refused = describe(&found.keys_and_values)
            .or_else(|| describe(&found.without_keys).filter(|_| are_copies && !is_simulated))
            .or_else(|| describe(&found.keys_alone).filter(|_| name_one_event));
        if let Some((path, row, text)) = refused {
            let fault = Fault::new("duplicate events").row(row);
            return Err(path
                .iter()
                .fold(fault, Fault::file)
                .expected("every event once")
                .found(text)
                .advice("remove the copies from the scores; if the events differ, set allow_repeated_events = true in the settings")
                .input());
        }
        let with_equal_keys = describe(&found.keys_alone).filter(|_| !is_simulated);
        let with_other_keys = describe(&found.values_alone);
        let without_keys = describe(&found.without_keys).filter(|_| !is_simulated);
        let warnings = [
            with_equal_keys.map(|(_, _, text)| {
                format!("Events with equal keys: {text}. They count twice, unless several telescopes recorded them.")
            }),
            with_other_keys.map(|(_, _, text)| {
                format!("Events with equal values and other keys: {text}. Copies count twice.")
            }),
            without_keys.map(|(_, _, text)| {
                format!("Events with equal values, without keys of run and event: {text}. Copies count twice.")
            }),
        ];
        Ok(warnings.into_iter().flatten().next())
    }

    /// Returns the pairs of events with equal keys, equal values, or both.
    fn duplicates(&mut self) -> DuplicatesByKind {
        let mut found = DuplicatesByKind::default();
        self.events.sort_unstable();
        for pair in self.events.windows(2).filter(|pair| pair[0].name == pair[1].name) {
            let kind = match (pair[0].has_keys(), pair[0].values == pair[1].values) {
                (false, _) => &mut found.without_keys,
                (true, true) => &mut found.keys_and_values,
                (true, false) => &mut found.keys_alone,
            };
            kind.add(pair[0], pair[1]);
        }
        // The same rows under other keys: copies, or values of little resolution.
        self.events.sort_unstable_by_key(|event| (event.values, event.file, event.row));
        for pair in self.events.windows(2) {
            if pair[0].values == pair[1].values && pair[0].name != pair[1].name {
                found.values_alone.count += 1;
                found.values_alone.first.get_or_insert((pair[0], pair[1]));
            }
        }
        found
    }
}

/// Pairs of equal events, by what is equal.
#[derive(Default)]
struct DuplicatesByKind {
    keys_alone: Duplicates,
    keys_and_values: Duplicates,
    without_keys: Duplicates,
    values_alone: Duplicates,
}

/// Number of pairs of equal events, and one pair as an example.
#[derive(Default)]
struct Duplicates {
    count: u64,
    first: Option<(CountedEvent, CountedEvent)>,
}

impl Duplicates {
    /// Counts a pair, and keeps it if its second event is before that of the pair kept so far.
    fn add(&mut self, a: CountedEvent, b: CountedEvent) {
        let place = |event: &CountedEvent| (event.file, event.row);
        let (first, second) = if place(&a) <= place(&b) { (a, b) } else { (b, a) };
        self.count += 1;
        let pairs = self.first.into_iter().chain([(first, second)]);
        self.first = pairs.min_by_key(|(_, second)| place(second));
    }

    /// Returns the file and row of the second event of the example, and a description.
    fn describe(
        &self,
        files: &[ScoreFileEntry],
        least: &str,
    ) -> Option<(Option<PathBuf>, u64, String)> {
        let (first, second) = self.first?;
        let file = |event: CountedEvent| files.get(event.file);
        let name = |event| file(event).map_or(String::new(), |file| file.name.clone());
        let text = format!(
            "{least}{} duplicates among the counted events, such as row {} of {} and row {} of {}",
            self.count,
            first.row,
            name(first),
            second.row,
            name(second)
        );
        Some((file(second).map(|file| file.path.clone()), second.row, text))
    }
}

impl CountedEvent {
    /// Whether keys identify the event; otherwise its values are its name.
    fn has_keys(&self) -> bool {
        self.name != self.values
    }

    fn is_kept(&self, one_in: u64) -> bool {
        [self.name, self.values].iter().any(|hash| (hash >> 32) & (one_in - 1) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use taiga_flow_gpu::random::Stream;

    fn files() -> Vec<ScoreFileEntry> {
        let listed = |name: &str| ScoreFileEntry {
            name: name.to_string(),
            path: PathBuf::from(name),
            rows: 0,
            inside: 0,
            input_blake3: name.to_string(),
            output_blake3: String::new(),
            warnings: Vec::new(),
        };
        ["a.h5", "b.h5"].map(listed).to_vec()
    }

    fn of(file: usize, rows: std::ops::Range<u64>, values: u64, seed: u64) -> CountedEvents {
        let names = Stream::new(seed, "names", &[]);
        let mut events = CountedEvents::default();
        for row in rows {
            let name = names.bits(row);
            events.push(CountedEvent { name, values: mixed(values, name), file: 0, row });
        }
        events.of_file(file);
        events
    }

    #[test]
    fn a_sample_finds_copies_of_many_events() {
        let seed = crate::test_seed();
        let many = 3 * MOST as u64;
        let mut all = of(0, 0..many, 0, seed);
        all.merge(of(1, many..many + 5, 0, seed));
        assert!(all.events.len() <= MOST && all.one_in >= 4, "seed {seed}");
        assert_eq!(all.clone().refuse_repeated(&files(), false).unwrap(), None);
        let copies = of(1, 7..200_000, 0, seed);
        let mut other = copies.clone();
        other.merge(all.clone());
        all.merge(copies);
        for events in [all, other] {
            let error = events.refuse_repeated(&files(), false).unwrap_err();
            assert_eq!(error.exit_code(), 3);
            let text = error.to_string();
            assert!(text.contains("at least") && text.contains("b.h5"), "seed {seed}: {text}");
        }
    }

    #[test]
    fn few_equal_rows_without_keys_are_warned_of() {
        let seed = crate::test_seed();
        let without_keys = |rows, repeated| {
            let mut events = of(0, 0..rows, 0, seed);
            events.merge(of(1, 0..repeated, 0, seed));
            events.events.iter_mut().for_each(|event| event.values = event.name);
            events.refuse_repeated(&files(), false)
        };
        assert_eq!(without_keys(1000, 0).unwrap(), None);
        let warning = without_keys(1000, 9).unwrap().unwrap();
        assert!(warning.contains("9 duplicates") && warning.contains("without keys"), "{warning}");
        assert_eq!(without_keys(1000, 50).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn equal_values_of_other_keys_are_warned_of() {
        let seed = crate::test_seed();
        let mut events = of(0, 0..50, 0, seed);
        let other_keys = of(1, 0..50, 0, seed)
            .events
            .into_iter()
            .take(3)
            .map(|event| CountedEvent { name: mixed(7, event.name), ..event });
        other_keys.for_each(|event| events.push(event));
        let text = events.refuse_repeated(&files(), false).unwrap().unwrap();
        assert!(text.contains("3 duplicates") && text.contains("other keys"), "{text}");
    }

    #[test]
    fn equal_keys_refused_where_telescope_is_known() {
        let seed = crate::test_seed();
        let mut events = of(0, 0..50, 0, seed);
        events.merge(of(1, 20..22, 1, seed));
        let warning = events.clone().refuse_repeated(&files(), false).unwrap().unwrap();
        assert!(warning.contains("2 duplicates"), "{warning}");
        assert_eq!(events.clone().refuse_repeated(&files(), true).unwrap(), None);
        events.are_named = true;
        let text = events.clone().refuse_repeated(&files(), false).unwrap_err().to_string();
        assert!(text.contains("row 20 of a.h5 and row 20 of b.h5"), "{text}");
        assert_eq!(events.refuse_repeated(&files(), true).unwrap(), None);
    }
}
