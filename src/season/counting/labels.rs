//! Counts events of known class in the files of a season; observations have no classes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Number of files that a warning names.
const NAMED: usize = 3;

/// Gammas and hadrons by their class column, of each file that has some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels(BTreeMap<String, [u64; 2]>);

impl Labels {
    /// Adds the classes of rows of a file; rows of unknown class do not count.
    pub fn add(&mut self, file: &str, classes: &[i8]) {
        let count = |code: i8| classes.iter().filter(|class| **class == code).count() as u64;
        let [gammas, hadrons] = [1, 0].map(count);
        if gammas + hadrons > 0 {
            let of_file = self.0.entry(file.to_string()).or_default();
            of_file[0] += gammas;
            of_file[1] += hadrons;
        }
    }

    pub fn merge(&mut self, other: Labels) {
        for (file, [gammas, hadrons]) in other.0 {
            let of_file = self.0.entry(file).or_default();
            of_file[0] += gammas;
            of_file[1] += hadrons;
        }
    }

    /// Returns a warning that names the first files, of so many in the season.
    pub fn warning(&self, files: usize) -> Option<String> {
        let counts =
            |(file, [g, h]): (&String, &[u64; 2])| format!("{file} ({g} gammas, {h} hadrons)");
        let named: Vec<String> = self.0.iter().take(NAMED).map(counts).collect();
        let more = if self.0.len() > NAMED { ", …" } else { "" };
        (!named.is_empty()).then(|| {
            format!(
                "{} of {files} score files have events of known class, as simulations do: {}{more}. A season is made of observations: give simulated gammas by --gamma-mc, and leave other simulations out.",
                self.0.len(),
                named.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labelled_files_are_named_with_their_counts() {
        let mut labels = Labels::default();
        labels.add("a.h5", &[-1, -1]);
        assert_eq!(labels.warning(1), None);
        labels.add("b.h5", &[1, 0, 0, -1]);
        let mut other = Labels::default();
        other.add("b.h5", &[1]);
        (0..5).for_each(|i| other.add(&format!("c{i}.h5"), &[0]));
        labels.merge(other);
        let text = labels.warning(9).unwrap();
        assert!(text.starts_with("6 of 9 score files") && text.contains("…"), "{text}");
        assert!(text.contains("b.h5 (2 gammas, 2 hadrons)") && !text.contains("a.h5"), "{text}");
    }
}
