//! Reads reference values of other programs; the script next to the table writes them.

const TABLE: &str = include_str!("../../tests/independent/counts_reference.txt");

/// Returns the numbers of all lines that begin with `name`.
pub(crate) fn lines(name: &str) -> Vec<Vec<f64>> {
    let rest = |line: &'static str| line.strip_prefix(name)?.strip_prefix(' ');
    let numbers = |rest: &str| rest.split(' ').map(|x| x.parse().unwrap()).collect();
    let found: Vec<Vec<f64>> = TABLE.lines().filter_map(rest).map(numbers).collect();
    assert!(!found.is_empty(), "no '{name}' in the table");
    found
}
