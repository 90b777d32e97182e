//! Selects the source position at which an event counts: once, at the position of its highest
//! score.
//!
//! ON and OFF regions overlap unless they are small, so one hadron may pass at several positions.
//! Counted at each of them, N_on and N_off contain the same events, and their difference fluctuates
//! less than independent counts do: the significance without a source is then too narrow. Counted
//! once, the counts are independent Poisson numbers, and positions that are equivalent under
//! rotation remain so. A hash of the event key decides between equal scores: the (hash mod number
//! of equals)-th of the tied positions in their order. So no position is favoured, and the order of
//! reading has no effect.

use taiga_flow_gpu::random::mix;

/// Largest number of positions in a bit mask.
pub(crate) const MAX_POSITIONS: usize = 64;

/// Returns the index of the position at which the event counts, `None` if it passes nowhere. Bit k
/// of `passes` is set if it passes at position k; `scores` are those of all positions.
pub fn counted_at(passes: u64, scores: &[f32], key: &[i64]) -> Option<usize> {
    if passes & passes.wrapping_sub(1) == 0 {
        return (passes != 0).then(|| passes.trailing_zeros() as usize);
    }
    let passing = || (0..scores.len().min(MAX_POSITIONS)).filter(|k| passes >> k & 1 == 1);
    let highest = passing().map(|k| scores[k]).reduce(f32::max)?;
    let tied = || passing().filter(|k| scores[*k] >= highest);
    let count = tied().count() as u64;
    if count < 2 { tied().next() } else { tied().nth((hash(key) % count) as usize) }
}

/// Returns a number that depends only on the event key.
fn hash(key: &[i64]) -> u64 {
    key.iter().fold(0x7A1E_D00D, |state, word| mix(state ^ mix(*word as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use taiga_flow_gpu::random::Stream;

    #[test]
    fn event_counts_once_at_its_highest_score() {
        let scores = [1.0, 5.0, 3.0, -2.0];
        assert_eq!(counted_at(0, &scores, &[7]), None);
        assert_eq!(counted_at(0b1000, &scores, &[7]), Some(3));
        assert_eq!(counted_at(0b1101, &scores, &[7]), Some(2));
        assert_eq!(counted_at(0b1111, &scores, &[7]), Some(1));
    }

    #[test]
    fn ties_favour_no_position_and_follow_the_key() {
        let scores = [2.0, 2.0, 1.0, 2.0];
        let mut counts = [0; 4];
        for event in 0..30_000 {
            let at = counted_at(0b1111, &scores, &[12, event]).unwrap();
            assert_eq!(counted_at(0b1111, &scores, &[12, event]), Some(at));
            counts[at] += 1;
        }
        assert_eq!(counts[2], 0);
        for k in [0, 1, 3] {
            assert!((9600..10_400).contains(&counts[k]), "{counts:?}");
        }
    }

    #[test]
    fn turning_all_positions_turns_the_counts() {
        let stream = Stream::new(3, "positions", &[]);
        for event in 0..2000_u64 {
            let scores: Vec<f32> = (0..6).map(|k| stream.uniform(6 * event + k) as f32).collect();
            let passes = stream.bits(1_000_000 + event) & 0b11_1111;
            let at = counted_at(passes, &scores, &[event as i64]);
            let turned: Vec<f32> = (0..6).map(|k| scores[(k + 1) % 6]).collect();
            let passes = (passes >> 1) | ((passes & 1) << 5);
            let expected = at.map(|k| (k + 5) % 6);
            assert_eq!(counted_at(passes, &turned, &[event as i64]), expected);
        }
    }
}
