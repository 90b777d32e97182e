//! Names of runs and telescopes, as reports show them.

/// Larger numbers of runs and portions are hashes: dates with a number stay below
/// (YYYYMMDDRRR is 38 bits), and one hash of 63 bits in 30 000 does.
const LEAST_HASH: i64 = 1 << 48;
/// Hexadecimal digits of a hash that are shown.
const SHOWN_DIGITS: usize = 12;

/// Returns whether a run or portion is named by a hash and not by a number.
pub(crate) fn is_hash(number: i64) -> bool {
    !(0..LEAST_HASH).contains(&number)
}

/// Returns the name of a run or portion: its number, or the first digits of its hash.
pub(crate) fn number_name(number: i64) -> String {
    if !is_hash(number) {
        return number.to_string();
    }
    format!("{number:016x}")[..SHOWN_DIGITS].to_string()
}

/// Returns the telescope that a path names: `IACT02/…`, `nights/IACT02_2023/run.h5`. The
/// last such part counts.
pub(crate) fn telescope_of(path: &str) -> Option<i64> {
    path.split(['/', '\\']).rev().find_map(|part| {
        let rest = part.get(..4).filter(|head| head.eq_ignore_ascii_case("iact"))?;
        let rest = &part[rest.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let ends = rest.as_bytes().get(digits).is_none_or(|next| !next.is_ascii_alphanumeric());
        (1..=2).contains(&digits).then_some(())?;
        rest[..digits].parse().ok().filter(|_| ends)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_hashes_are_short() {
        assert_eq!(number_name(20_231_212_005), "20231212005");
        assert_eq!(number_name(0), "0");
        assert_eq!(number_name(0x0123_4567_89ab_cdef), "0123456789ab");
        assert_eq!(number_name(-1), "ffffffffffff");
    }

    #[test]
    fn telescope_is_known_by_a_part_of_the_path() {
        for (path, telescope) in [
            ("IACT01/121223.05_out_hillas.h5", Some(1)),
            ("scores/iact12_2023/night/run.h5", Some(12)),
            ("IACT01/IACT03/run.h5", Some(3)),
            ("IACT02.h5", Some(2)),
            ("IACT/run.h5", None),
            ("IACT02a/run.h5", None),
            ("IACT123/run.h5", None),
            ("night-0/run-1.h5", None),
            ("МАС/run.h5", None),
            ("", None),
        ] {
            assert_eq!(telescope_of(path), telescope, "{path}");
        }
    }
}
