//! log p of the engine agrees with the f64 reference, event by event, for a trained model and 10⁵
//! events, many of which are far from its training data.

use crate::support::{folder, seed, simulated, trained};
use rayon::prelude::*;
use taiga_flow::config::Class;
use taiga_flow::data::schema::features::ScaledFeature;
use taiga_flow::data::{Request, Schema, Table};
use taiga_flow::engine::{self, RankResources};
use taiga_flow::model::Model;
use taiga_flow_gpu::reference::ReferenceFlow;
use taiga_flow_gpu::spec::FlowSpec;

const EVENTS_PER_CLASS: u64 = 50_000;
const BAR: f64 = 1e-5;
const INVERSE_BAR: f64 = 1e-4;

/// Returns scaled events of both classes: (events, features).
fn events(features: &[ScaledFeature]) -> Vec<f32> {
    let folder = folder();
    let mut events = Vec::new();
    for (class, name) in [(Class::Gamma, "gamma.h5"), (Class::Hadron, "hadron.h5")] {
        let path = simulated(folder.path().join(name), class, EVENTS_PER_CLASS, seed() + 7);
        let table = Table::open(&path, &Schema::detect(&path).expect("a schema")).expect("a table");
        let quantities = features.iter().map(|f| f.feature.name.clone()).collect();
        let mut reader =
            table.reader(&Request { quantities, ..Request::default() }).expect("columns");
        let mut block = taiga_flow::data::Block::default();
        reader.read(0..table.rows(), &mut block).expect("rows");
        for row in 0..block.rows {
            events.extend(features.iter().zip(&block.quantities).map(|(f, q)| f.scaled(q[row])));
        }
    }
    assert!(events.iter().all(|x| x.is_finite()));
    events
}

struct Flow {
    spec: FlowSpec,
    params: Vec<f32>,
    features: Vec<ScaledFeature>,
}

fn flow() -> Flow {
    let (model, _) = Model::load(&trained().model).expect("a model");
    let spec = model.card.flows["main"].spec.clone();
    Flow { spec, params: model.flows["main"].clone(), features: model.card.features }
}

fn engine(flow: &Flow) -> Box<dyn engine::Engine> {
    let mut engine = engine::start(&RankResources::cpu(2), &flow.spec).expect("an engine");
    engine.set_params(&flow.params).expect("parameters");
    engine
}

/// Returns the largest |Δ| relative to its limit. The limit is `BAR` (relative above 1), or three
/// times the error of a plain f32 loop if that is larger.
fn worst(events: &[f32], found: &[f32], flow: &Flow) -> f64 {
    let (exact, plain): (ReferenceFlow<f64>, ReferenceFlow<f32>) = (
        ReferenceFlow::new(&flow.spec, &flow.params),
        ReferenceFlow::new(&flow.spec, &flow.params),
    );
    events
        .par_chunks(flow.spec.features)
        .zip(found)
        .map(|(x, found)| {
            let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            let expected = exact.log_prob(&wide);
            let error = (f64::from(plain.log_prob(x)) - expected).abs();
            let bar = (BAR * expected.abs().max(1.0)).max(3.0 * error);
            (f64::from(*found) - expected).abs() / bar
        })
        .reduce(|| 0.0, |a, b| if a >= b { a } else { b })
}

#[test]
fn log_p_agrees_with_f64_reference() {
    let flow = flow();
    let events = events(&flow.features);
    let mut found = vec![f32::NAN; events.len() / flow.spec.features];
    assert_eq!(found.len() as u64, 2 * EVENTS_PER_CLASS);
    engine(&flow).log_prob(&events, &mut found).expect("log p");
    let worst_found = worst(&events, &found, &flow);
    println!("largest difference: {worst_found:.3} of its bar");
    assert!(worst_found <= 1.0);
    // Test of the comparison itself: one value wrong by a thousandth exceeds the limit.
    let row = (seed() % EVENTS_PER_CLASS) as usize;
    found[row] += 1e-3 * found[row].abs().max(1.0);
    assert!(worst(&events, &found, &flow) > 1.0);
}

#[test]
fn inverse_of_forward_returns_the_events() {
    let flow = flow();
    let events = events(&flow.features);
    let features = flow.spec.features;
    let exact: ReferenceFlow<f64> = ReferenceFlow::new(&flow.spec, &flow.params);
    let plain: ReferenceFlow<f32> = ReferenceFlow::new(&flow.spec, &flow.params);
    let latent: Vec<f32> = events
        .par_chunks(features)
        .flat_map_iter(|x| {
            let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            exact.forward(&wide).0.into_iter().map(|z| z as f32)
        })
        .collect();
    let mut back = vec![f32::NAN; events.len()];
    engine(&flow).inverse(&latent, &mut back).expect("events");
    let worst = events
        .par_chunks(features)
        .zip(latent.par_chunks(features))
        .zip(back.par_chunks(features))
        .flat_map_iter(|((x, z), back)| {
            let plain = plain.inverse(z).0;
            x.iter()
                .zip(plain)
                .zip(back)
                .map(|((x, plain), back)| {
                    let bar = (INVERSE_BAR * x.abs().max(1.0) as f64)
                        .max(3.0 * f64::from((plain - x).abs()));
                    f64::from((back - x).abs()) / bar
                })
                .collect::<Vec<f64>>()
        })
        .reduce(|| 0.0, |a, b| if a >= b { a } else { b });
    println!("largest difference: {worst:.3} of its bar");
    assert!(worst <= 1.0);
}
