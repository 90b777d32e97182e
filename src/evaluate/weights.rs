//! Refuses weights whose sums overflow or vanish, before an evaluation is written.

use super::events::{EvaluatedEvents, Weighed};
use crate::config::Class;
use crate::error::{Fault, Result};
use crate::statistics::{Evaluation, WeightSum};

const ADVICE: &str = "multiply the weight by a constant: the results do not depend on its scale; --weight 1 evaluates without weights";

impl EvaluatedEvents {
    /// Refuses weights of a class whose sums are not finite and normal numbers, for all events and
    /// for those inside the cuts.
    ///
    /// # Errors
    /// `Input`, with the class and the sum.
    pub(super) fn refuse_extreme_weights(&self, expression: &str) -> Result<()> {
        let before = self.before_weights.map(Weighed::all);
        for (class, before_cuts) in [Class::Gamma, Class::Hadron].into_iter().zip(before) {
            let own = self.gamma.iter().zip(&self.weight);
            let own = own.filter(|(gamma, _)| **gamma == (class == Class::Gamma));
            let inside = own.fold(WeightSum::default(), |sum, (_, weight)| sum.with(*weight));
            for sum in [inside, before_cuts] {
                refuse_extreme(sum, class, expression)?;
            }
        }
        Ok(())
    }
}

fn refuse_extreme(sum: WeightSum, class: Class, expression: &str) -> Result<()> {
    let sums = [("weights", sum.weight), ("squared weights", sum.squares)];
    let extreme = sums.into_iter().find(|(_, sum)| !sum.is_normal());
    let Some((name, found)) = extreme.filter(|_| sum.events > 0) else { return Ok(()) };
    let size = if found.is_finite() { "small" } else { "large" };
    Err(Fault::new(format!("the weights of the {class}s are too {size}"))
        .expected(format!("a sum of {name} that is finite and not below {:e}", f64::MIN_POSITIVE))
        .found(format!("{found:e} for {} events ({expression})", sum.events))
        .advice(ADVICE)
        .input())
}

/// Refuses the text of an evaluation that cannot be read again: JSON has no number for NaN and
/// infinity.
///
/// # Errors
/// `Input`.
pub(super) fn refuse_unreadable(json: &[u8]) -> Result<()> {
    let read: serde_json::Result<Evaluation> = serde_json::from_slice(json);
    read.map(drop).map_err(|error| {
        Fault::new("a result of the evaluation is not a finite number")
            .found(error)
            .advice(ADVICE)
            .input()
    })
}
