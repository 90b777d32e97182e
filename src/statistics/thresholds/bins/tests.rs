use super::*;
use taiga_flow_gpu::random::Stream;

fn settings(edges: &[f64], few: Few) -> BinnedThresholdConfig {
    BinnedThresholdConfig { per: "size".into(), edges: edges.to_vec(), least: 20, few }
}

fn stream() -> Stream {
    Stream::new(crate::test_seed(), "bins of thresholds", &[])
}

/// Returns scores that rise with the bin, so that one threshold for all would be wrong for
/// each.
fn events(count: u64, bins: u16) -> Vec<HeldOutEvent> {
    let stream = stream();
    let event = |i: u64| {
        let class = if stream.bits(4 * i).is_multiple_of(2) { Class::Gamma } else { Class::Hadron };
        let bin = (stream.bits(4 * i + 1) % u64::from(bins)) as u16;
        let shift = if class == Class::Gamma { 1.0 } else { 0.0 };
        let score =
            f64::from((stream.normal(2 * i + (1 << 40)) + shift) as f32) + 10.0 * f64::from(bin);
        HeldOutEvent { score, class, weight: 1.0 + (i % 3) as f64, bin }
    };
    (0..count).map(event).collect()
}

#[test]
fn bin_is_described_by_its_range() {
    let texts: Vec<String> = (0..4).map(|bin| range_text(&[1.0, 2.5, 7.0], bin)).collect();
    assert_eq!(texts, ["below 1", "1 … 2.5", "2.5 … 7", "from 7"]);
}

fn global(value: f64) -> Threshold {
    Rule::Fixed { value }.choose(&Sample::default()).unwrap()
}

#[test]
fn each_bin_has_the_threshold_of_its_events() {
    let events = events(4001, 3);
    for (rule, weighted) in [
        (Rule::two_sigma(Class::Gamma), false),
        (Rule::two_sigma(Class::Hadron), true),
        (Rule::GammaEfficiency { efficiency: 0.7 }, false),
        (Rule::HadronSurvival { survival: 0.1 }, true),
        (Rule::LargestQ, false),
    ] {
        let settings = settings(&[1.0, 2.0], Few::Refuse);
        let chosen =
            BinnedThresholds::choose(&settings, rule, &events, weighted, global(0.0)).unwrap();
        chosen.validate().unwrap();
        for (bin, found) in chosen.bins.iter().enumerate() {
            let own: Vec<_> = events.iter().filter(|e| usize::from(e.bin) == bin).collect();
            let scores: Vec<f64> = own.iter().map(|e| e.score).collect();
            let gamma: Vec<bool> = own.iter().map(|e| e.class == Class::Gamma).collect();
            let weights: Vec<f64> = own.iter().map(|e| e.weight).collect();
            let weights = weighted.then_some(weights.as_slice());
            let sample = Sample::weighted(&scores, &gamma, weights).unwrap();
            assert_eq!(found.threshold, rule.choose(&sample).unwrap().value, "{rule}");
            assert_eq!(found.events, sample.counts());
        }
        // The order of the events, which depends on the ranks, has no effect.
        let mut turned = events.clone();
        turned.rotate_left(1234);
        let again =
            BinnedThresholds::choose(&settings, rule, &turned, weighted, global(0.0)).unwrap();
        assert_eq!(again, chosen);
    }
}

#[test]
fn sparse_bin_refused_or_uses_global_threshold() {
    let mut events = events(900, 2);
    let few = HeldOutEvent { score: 3.0, class: Class::Gamma, weight: 1.0, bin: 2 };
    events.extend([few; 19]);
    let rule = Rule::two_sigma(Class::Gamma);
    let choose = |few, events: &[HeldOutEvent]| {
        BinnedThresholds::choose(&settings(&[1.0, 2.0], few), rule, events, false, global(4.25))
    };
    let refused = choose(Few::Refuse, &events).unwrap_err();
    assert_eq!(refused.exit_code(), 3);
    let message = refused.to_string();
    assert!(
        message.contains("from 2: 19 gammas, 0 hadrons") && !message.contains("below 1"),
        "{message}"
    );
    let fallen_back = choose(Few::Global, &events).unwrap();
    assert_eq!(fallen_back.with_global(), ["from 2"]);
    assert_eq!(fallen_back.bins[2].threshold, 4.25);
    assert!(!fallen_back.bins[0].global && fallen_back.bins[0].threshold != 4.25);
    events.push(few);
    assert!(choose(Few::Refuse, &events).is_ok(), "twenty are enough");
    // Hadrons are not required if the rule does not use them; other classes are.
    let rule = Rule::HadronSurvival { survival: 0.1 };
    let outcome = BinnedThresholds::choose(
        &settings(&[1.0, 2.0], Few::Refuse),
        rule,
        &events,
        false,
        global(0.0),
    );
    assert!(outcome.unwrap_err().to_string().contains("hadrons that pass"));
}

#[test]
fn all_bins_pass_the_sum_of_single_bins() {
    let events = events(3001, 4);
    let chosen = BinnedThresholds::choose(
        &settings(&[1.0, 2.0, 3.0], Few::Refuse),
        Rule::GammaEfficiency { efficiency: 0.8 },
        &events,
        false,
        global(0.0),
    )
    .unwrap();
    let scores: Vec<f32> = events.iter().map(|e| e.score as f32).collect();
    let gamma: Vec<bool> = events.iter().map(|e| e.class == Class::Gamma).collect();
    let mut bin: Vec<u16> = events.iter().map(|e| e.bin).collect();
    bin[17] = NO_BIN;
    let at = AtBins::of(&chosen, &scores, &gamma, &bin, None, None, 1e-3).unwrap();
    let mut sums = [0; 4];
    for of_bin in &at.bins {
        let c = of_bin.confusion;
        let counts = [c.gamma_as_gamma, c.gamma_as_hadron, c.hadron_as_gamma, c.hadron_as_hadron];
        sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        let efficiency = of_bin.after_cuts.gamma_efficiency.unwrap().value;
        assert!((0.79..0.82).contains(&efficiency), "{efficiency}");
    }
    sums[if gamma[17] { 1 } else { 3 }] += 1; // in no bin: never a gamma
    let c = at.all.confusion;
    let all = [c.gamma_as_gamma, c.gamma_as_hadron, c.hadron_as_gamma, c.hadron_as_hadron];
    assert_eq!(all, sums);
    assert_eq!(at.outside.gamma + at.outside.hadron, 1);
    let text = serde_json::to_string(&at).unwrap();
    assert_eq!(serde_json::from_str::<AtBins>(&text).unwrap(), at);
}

#[test]
fn invalid_bins_are_refused() {
    let bin = BinThreshold {
        threshold: 1.0,
        events: ClassCounts::default(),
        global: false,
        limited_by_hadrons: None,
    };
    let good = BinnedThresholds { per: "size".into(), edges: vec![1.0, 2.0], bins: vec![bin; 3] };
    good.validate().unwrap();
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<BinnedThresholds>(&text).unwrap(), good);
    for wrong in [
        BinnedThresholds { edges: vec![2.0, 1.0], ..good.clone() },
        BinnedThresholds { edges: vec![1.0], ..good.clone() },
        BinnedThresholds {
            bins: vec![BinThreshold { threshold: f64::NAN, ..bin }; 3],
            ..good.clone()
        },
    ] {
        assert_eq!(wrong.validate().unwrap_err().exit_code(), 3);
    }
}
