//! Selection of the events of a scoring: working point, positions, cuts and quality.

use crate::config::{Interval, OffPositionSettings, SeasonSettings};
use crate::data::table::scores::Head;
use crate::error::{Fault, Result};
use crate::statistics::counts::disjoint::MAX_POSITIONS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Criterion by which an event passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum PassCriterion {
    /// Bit of `pass`.
    Point(u8),
    /// Least score, inside the cuts.
    Threshold(f64),
}

/// Selection that all files of a folder share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SeasonPlan {
    pub passing: PassCriterion,
    /// Name of the working point, or "score ≥ t".
    pub label: String,
    /// Absent if it differs between bins of a quantity.
    pub threshold: Option<f64>,
    /// Whether events pass by their score and one threshold, so that others can be tried.
    pub is_scanned: bool,
    pub positions: Vec<f64>,
    /// Whether a position is counted; the source always is.
    pub kept: Vec<bool>,
    pub quality_bits: Vec<String>,
    /// Bits of quality that reject an event.
    pub quality: u32,
    pub of_time: u32,
    pub cuts: Vec<(String, Interval)>,
    pub gap_ns: i64,
    pub edges: Vec<f64>,
    pub candidates: usize,
    pub rotation: OffPositionSettings,
    /// Keys that name a shower for all telescopes; empty if telescopes are independent.
    pub shower_key: Vec<String>,
    /// Gammas of a simulation, whose true energies count.
    pub simulated: bool,
}

impl SeasonPlan {
    /// Creates the plan from the first file of a folder, which the others must agree with.
    ///
    /// # Errors
    /// `Usage` if the score files do not support the settings.
    pub(crate) fn new(
        head: &Head,
        settings: &SeasonSettings,
        simulated: bool,
    ) -> Result<SeasonPlan> {
        let (passing, label, threshold) = passing(head, settings)?;
        let by_score = match passing {
            PassCriterion::Threshold(_) => true,
            PassCriterion::Point(bit) => {
                let column = head.working_points.get(usize::from(bit)).map(|p| p.column.as_str());
                matches!(column, Some("score" | ""))
            }
        };
        let kept = kept_positions(head, &settings.positions.drop)?;
        if let Some(name) = settings.cuts.keys().find(|name| !head.of_position.contains(name)) {
            return Err(Fault::new(format!("no column '{name}' to cut on"))
                .expected(format!("one of {}", head.of_position.join(", ")))
                .advice("name it in [score] columns and score again, or leave the cut out")
                .usage());
        }
        if !simulated {
            check_shower_key(head, &settings.shower_key)?;
        }
        let all = (0..head.quality_bits.len().min(32)).fold(0_u32, |bits, i| bits | 1 << i);
        let ignored = ignored_bits(head, &settings.quality.ignore)?;
        Ok(SeasonPlan {
            passing,
            label,
            threshold,
            is_scanned: by_score && threshold.is_some() && !simulated,
            positions: head.positions.clone(),
            kept,
            quality_bits: head.quality_bits.clone(),
            quality: all & !ignored,
            of_time: bits_of_time(head, &settings.quality.of_time) & !ignored,
            cuts: settings.cuts.iter().map(|(name, cut)| (name.clone(), *cut)).collect(),
            gap_ns: (settings.time.gap * 1e9) as i64,
            edges: settings.energy.edges.clone(),
            candidates: if simulated { 0 } else { settings.candidates },
            rotation: settings.positions.clone(),
            shower_key: if simulated { Vec::new() } else { settings.shower_key.clone() },
            simulated,
        })
    }

    /// Returns why the positions of a source at these distances from the camera centre [deg] are not
    /// alike; `None` if they are, or if there is only one.
    pub(crate) fn offset_rejection(&self, offset: Option<[f64; 2]>) -> Option<String> {
        let limits = &self.rotation;
        match offset {
            _ if self.positions.len() < 2 => None,
            None => Some(
                "its files do not state the source's offset, so it cannot be rotated".to_string(),
            ),
            Some([least, _]) if least < limits.least_offset => Some(format!(
                "the source is {least:.3} deg from the camera's centre, too near to rotate (under {} deg)",
                limits.least_offset
            )),
            Some([least, most]) if most - least > limits.offset_change => Some(format!(
                "the source's offset goes from {least:.3} to {most:.3} deg within the run: rotated positions are not alike"
            )),
            Some(_) => None,
        }
    }

    /// Returns the counted OFF positions.
    pub(crate) fn off(&self) -> impl Iterator<Item = usize> {
        (1..self.positions.len()).filter(|k| self.kept[*k])
    }

    /// Refuses a file that differs from the first one; returns its threshold as text.
    ///
    /// # Errors
    /// `Input`.
    pub(crate) fn check(
        &self,
        head: &Head,
        path: &Path,
        settings: &SeasonSettings,
    ) -> Result<String> {
        let own = SeasonPlan::new(head, settings, self.simulated).map_err(|e| e.in_file(path))?;
        let fault = |what: &str| Fault::new(what.to_string()).file(path);
        if own.positions != self.positions {
            return Err(fault("scored at other positions than the first file")
                .expected(format!("{:?} deg", self.positions))
                .found(format!("{:?} deg", own.positions))
                .advice("make reports of equal scorings")
                .input());
        }
        if own.passing != self.passing || own.label != self.label {
            return Err(fault("other working points than the first file")
                .expected(&self.label)
                .found(&own.label)
                .input());
        }
        if own.quality_bits != self.quality_bits {
            return Err(fault("other quality cuts than the first file")
                .expected(self.quality_bits.join(", "))
                .found(own.quality_bits.join(", "))
                .input());
        }
        Ok(own
            .threshold
            .map_or("thresholds by bins".to_string(), |threshold| threshold.to_string()))
    }
}

/// Returns which positions are counted: all but those in `dropped` [deg].
fn kept_positions(head: &Head, dropped: &[f64]) -> Result<Vec<bool>> {
    let many = head.positions.len();
    if many > MAX_POSITIONS {
        return Err(Fault::new("too many positions")
            .expected(format!("at most {MAX_POSITIONS}"))
            .found(many)
            .input());
    }
    let mut kept = vec![true; many];
    for angle in dropped {
        let is_here = |p: &f64| libm::fabs(libm::remainder(p - angle, 360.0)) < 0.01;
        match head.positions.iter().position(is_here) {
            Some(0) => {
                return Err(Fault::new("the source's own position cannot be dropped").usage());
            }
            Some(k) => kept[k] = false,
            None => {
                return Err(Fault::new("no such position to drop")
                    .expected(format!("one of {:?} deg", head.positions))
                    .found(angle)
                    .usage());
            }
        }
    }
    Ok(kept)
}

/// Returns the bits of the quality cuts with these names.
fn ignored_bits(head: &Head, names: &[String]) -> Result<u32> {
    names.iter().try_fold(0, |bits, name| {
        let known = head.quality_bits.iter().position(|known| known == name);
        let bit = known.ok_or_else(|| {
            Fault::new(format!("no quality cut '{name}' to ignore"))
                .expected(format!("one of {}", head.quality_bits.join(", ")))
                .usage()
        })?;
        Ok(bits | 1 << bit)
    })
}

/// Returns the bits of the quality cuts on these quantities. A cut is named by its quantity, as in
/// `weather_mark > 5`.
fn bits_of_time(head: &Head, quantities: &[String]) -> u32 {
    let quantity = |cut: &str| {
        let end = cut.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        cut[..end.unwrap_or(cut.len())].to_lowercase()
    };
    let is_of_time =
        |cut: &str| quantities.iter().any(|known| known.to_lowercase() == quantity(cut));
    let cuts = head.quality_bits.iter().enumerate().take(32);
    cuts.filter(|(_, cut)| is_of_time(cut)).fold(0, |bits, (i, _)| bits | 1 << i)
}

/// Refuses counts of one model with different thresholds under the name of one working point.
pub(crate) fn refuse_selections<'a>(
    point: &str,
    selections: impl Iterator<Item = &'a (String, String)>,
) -> Result<()> {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    for (model, threshold) in selections {
        let first = known.entry(model).or_insert(threshold);
        if first != threshold {
            return Err(Fault::new(format!(
                "the working point '{point}' has different thresholds in the score files"
            ))
            .expected("one threshold for all files of a model")
            .found(format!(
                "{first} and {threshold}, of the model {}",
                &model[..model.len().min(12)]
            ))
            .advice("score all files with one configuration, or give --threshold")
            .input());
        }
    }
    Ok(())
}

/// Refuses keys that the score files do not have, and files without a size.
fn check_shower_key(head: &Head, names: &[String]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| !head.keys.contains(name)) {
        return Err(Fault::new("no such key for shower_key")
            .column(name)
            .expected(format!("some of {}", head.keys.join(", ")))
            .usage());
    }
    if !names.is_empty() && !head.copied.iter().any(|name| name == "size") {
        return Err(Fault::new("shower_key needs the size of images")
            .column("size")
            .advice("name it in [score] copy and score again, or leave shower_key out")
            .usage());
    }
    Ok(())
}

/// Returns the requested working point or threshold.
fn passing(head: &Head, settings: &SeasonSettings) -> Result<(PassCriterion, String, Option<f64>)> {
    if let Some(threshold) = settings.threshold {
        let label = format!("score ≥ {threshold}");
        return Ok((PassCriterion::Threshold(threshold), label, Some(threshold)));
    }
    let names: Vec<&str> = head.working_points.iter().map(|p| p.name.as_str()).collect();
    let index = match &settings.point {
        Some(name) => names.iter().position(|known| known == name),
        None => (!names.is_empty()).then_some(0),
    };
    let usable = index.filter(|index| *index < 8 && head.has_pass);
    let Some(index) = usable else {
        let asked = settings
            .point
            .as_ref()
            .map_or("a working point".to_string(), |name| format!("a working point '{name}'"));
        return Err(Fault::new(format!("the score files do not have {asked}"))
            .found(if names.is_empty() { "none".to_string() } else { names.join(", ") })
            .advice("give --threshold, a least score, or score again with the column `pass`")
            .usage());
    };
    let point = &head.working_points[index];
    Ok((PassCriterion::Point(index as u8), point.name.clone(), point.threshold))
}
