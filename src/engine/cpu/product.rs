//! Matrix products on a tile, and the gradients of the matrices, for any shape.
//!
//! Both are sums of rank-one updates in registers, for several rows and vectors at a time: of
//! matrix columns and feature rows (products), or of single events (gradients, whose lanes are
//! inputs). Every number is one chain of multiply-adds over ascending columns or events, so the
//! number of rows and vectors in registers does not change a bit.

use super::pass::add_group;
use crate::engine::simd::lanes::{LANES, Lanes, ZERO};
use crate::engine::simd::vector::{GROUP, Vector};
use crate::engine::simd::vectorised;
use taiga_flow_gpu::layout::Dense;

/// Rows in registers at a time; with 4 vectors each, their sums fit into 32 registers.
const ROWS: usize = 6;

/// A matrix with a start value for each row.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<[f32; ROWS]>, // (blocks of rows, columns), zero rows at the end
    start: Vec<[f32; ROWS]>,  // (blocks of rows)
}

impl Matrix {
    /// Creates a matrix of zeros.
    pub(crate) fn zero(rows: usize, columns: usize) -> Matrix {
        let blocks = rows.div_ceil(ROWS);
        let (values, start) = (vec![[0.0; ROWS]; blocks * columns], vec![[0.0; ROWS]; blocks]);
        Matrix { rows, columns, values, start }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Loads the weights of a layer, and its biases as start values.
    pub(crate) fn load(&mut self, layer: &Dense, params: &[f32]) {
        let weight = &params[layer.weight.clone()];
        for (row, from) in weight.chunks_exact(self.columns).enumerate() {
            let block = &mut self.values[row / ROWS * self.columns..][..self.columns];
            for (to, w) in block.iter_mut().zip(from) {
                to[row % ROWS] = *w;
            }
        }
        for (row, bias) in params[layer.bias.clone()].iter().enumerate() {
            self.start[row / ROWS][row % ROWS] = *bias;
        }
    }

    /// Loads the weights of a layer, inputs as rows; the start values stay zero.
    pub(crate) fn load_transposed(&mut self, layer: &Dense, params: &[f32]) {
        let weight = &params[layer.weight.clone()];
        for (column, from) in weight.chunks_exact(self.rows).enumerate() {
            for (block, from) in from.chunks(ROWS).enumerate() {
                let to = &mut self.values[block * self.columns + column];
                to[..from.len()].copy_from_slice(from);
            }
        }
    }
}

/// Operation on a product before it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Finish<'a> {
    Plain,
    /// max(y, 0)
    Rectify,
    /// y where the activation (rows, vectors) is positive, else 0.
    WherePositive(&'a [Lanes]),
}

impl Finish<'_> {
    #[inline(always)]
    fn apply<V: Vector>(self, y: V, at: usize) -> V {
        match self {
            Finish::Plain => y,
            Finish::Rectify => V::relu(y),
            Finish::WherePositive(activation) => V::where_positive(V::load(&activation[at]), y),
        }
    }
}

vectorised!(pub fn multiply(
    matrix: &Matrix,
    x: &[Lanes], // (columns, vectors)
    vectors: usize,
    finish: Finish,
    out: &mut [Lanes], // (rows, vectors)
) = multiply_body);

/// Computes out[r] = start[r] + Σ_c matrix[r, c] · x[c].
#[inline(always)]
fn multiply_body<V: Vector>(
    matrix: &Matrix,
    x: &[Lanes],
    vectors: usize,
    finish: Finish,
    out: &mut [Lanes],
) {
    for block in 0..matrix.start.len() {
        let mut first = 0;
        while V::MANY && first + 4 <= vectors {
            multiply_block::<V, 4>(matrix, block, x, (first, vectors), finish, out);
            first += 4;
        }
        while first < vectors {
            multiply_block::<V, 1>(matrix, block, x, (first, vectors), finish, out);
            first += 1;
        }
    }
}

#[inline(always)]
fn multiply_block<V: Vector, const K: usize>(
    matrix: &Matrix,
    block: usize,
    x: &[Lanes],
    (first, vectors): (usize, usize),
    finish: Finish,
    out: &mut [Lanes],
) {
    let mut sums = [[V::splat(0.0); K]; ROWS];
    for r in 0..ROWS {
        sums[r] = [V::splat(matrix.start[block][r]); K];
    }
    let values = &matrix.values[block * matrix.columns..][..matrix.columns];
    for (column, x) in values.iter().zip(x[first..].chunks(vectors)) {
        sums = add_outer(column, x, sums);
    }
    for r in 0..ROWS.min(matrix.rows - block * ROWS) {
        for k in 0..K {
            let at = (block * ROWS + r) * vectors + first + k;
            finish.apply(sums[r][k], at).store(&mut out[at]);
        }
    }
}

/// Computes sums[r] + column[r] · x. The sums are passed by value, and the only early exit is a
/// panic. Otherwise the compiler would keep the sums in memory and store them in every iteration.
#[inline(always)]
fn add_outer<V: Vector, const K: usize>(
    column: &[f32; ROWS],
    x: &[Lanes],
    mut sums: [[V; K]; ROWS],
) -> [[V; K]; ROWS] {
    let x = &x[..K];
    let mut vectors = [V::splat(0.0); K];
    for k in 0..K {
        vectors[k] = V::load(&x[k]);
    }
    for r in 0..ROWS {
        let factor = V::splat(column[r]);
        for k in 0..K {
            sums[r][k] = V::fma(factor, vectors[k], sums[r][k]);
        }
    }
    sums
}

/// Transposes features by events to events by features: (rows, vectors) to (16 · vectors, vectors
/// of rows), padded with zeros.
pub(crate) fn transpose(x: &[Lanes], vectors: usize, out: &mut Vec<Lanes>) {
    let rows = x.len() / vectors;
    let width = rows.div_ceil(LANES);
    out.resize(LANES * vectors * width, ZERO);
    for (group, x) in x.chunks(LANES * vectors).enumerate() {
        for v in 0..vectors {
            let mut square = [ZERO; LANES];
            for (r, row) in x.chunks_exact(vectors).enumerate() {
                for lane in 0..LANES {
                    square[lane][r] = row[v][lane];
                }
            }
            for lane in 0..LANES {
                out[(v * LANES + lane) * width + group] = square[lane];
            }
        }
    }
}

/// Fixed-point gradient sums of one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerSums {
    width: usize,              // vectors of inputs
    weight: Vec<[i64; GROUP]>, // (outputs, width, 2)
    bias: Vec<[i64; GROUP]>,   // (outputs / 8)
}

impl LayerSums {
    /// Creates sums of 0 for a layer.
    pub(crate) fn new(layer: &Dense) -> LayerSums {
        let width = layer.inputs.div_ceil(LANES);
        LayerSums {
            width,
            weight: vec![[0; GROUP]; layer.outputs * width * (LANES / GROUP)],
            bias: vec![[0; GROUP]; layer.outputs.div_ceil(GROUP)],
        }
    }

    /// Sets all sums to 0.
    pub(crate) fn clear(&mut self) {
        self.weight.fill([0; GROUP]);
        self.bias.fill([0; GROUP]);
    }

    /// Adds the sums to flat ones, at the positions in the layout.
    pub(crate) fn add_to(&self, layer: &Dense, flat: &mut [i64]) {
        let rows = self.weight.as_flattened().chunks_exact(self.width * LANES);
        for (to, row) in flat[layer.weight.clone()].chunks_exact_mut(layer.inputs).zip(rows) {
            add_all(to, row);
        }
        add_all(&mut flat[layer.bias.clone()], self.bias.as_flattened());
    }
}

fn add_all(totals: &mut [i64], values: &[i64]) {
    for (total, value) in totals.iter_mut().zip(values) {
        *total = total.wrapping_add(*value);
    }
}

vectorised!(pub fn add_gradient(
    u: &[Lanes], // (outputs, vectors) ∂L/∂y
    x: &[Lanes], // (events, vectors of inputs), transposed
    vectors: usize,
    bound: f32,
    sums: &mut LayerSums,
    unusable: &mut bool, // set if a component is too large or not finite
) = gradient_body);

/// Adds Σ_events u · xᵀ and Σ_events u to the sums.
#[inline(always)]
fn gradient_body<V: Vector>(
    u: &[Lanes],
    x: &[Lanes],
    vectors: usize,
    bound: f32,
    sums: &mut LayerSums,
    unusable: &mut bool,
) {
    let width = sums.width;
    let blocks = sums.weight.chunks_mut(ROWS * width * (LANES / GROUP));
    for (u, sums) in u.chunks(ROWS * vectors).zip(blocks) {
        let mut first = 0;
        while V::MANY && first + 4 <= width {
            *unusable |= gradient_block::<V, 4>(u, x, vectors, (first, width), bound, sums);
            first += 4;
        }
        while first < width {
            *unusable |= gradient_block::<V, 1>(u, x, vectors, (first, width), bound, sums);
            first += 1;
        }
    }
    for (u, sums) in u.chunks(GROUP * vectors).zip(&mut sums.bias) {
        *unusable |= bias_gradient::<V>(u, vectors, bound, sums);
    }
}

#[inline(always)]
fn gradient_block<V: Vector, const K: usize>(
    u: &[Lanes],
    x: &[Lanes],
    vectors: usize,
    (first, width): (usize, usize),
    bound: f32,
    fixed: &mut [[i64; GROUP]],
) -> bool {
    let rows = u.len() / vectors;
    let mut sums = [[V::splat(0.0); K]; ROWS];
    for (v, x) in x.chunks_exact(LANES * width).enumerate() {
        let mut factors = [&ZERO; ROWS];
        for r in 0..rows.min(ROWS) {
            factors[r] = &u[r * vectors + v];
        }
        for (lane, x) in x[first..].chunks(width).enumerate() {
            let mut column = [0.0; ROWS];
            for r in 0..ROWS {
                column[r] = factors[r][lane];
            }
            sums = add_outer(&column, x, sums);
        }
    }
    let mut unusable = false;
    for r in 0..rows.min(ROWS) {
        for k in 0..K {
            let mut lanes = ZERO;
            sums[r][k].store(&mut lanes);
            for (half, sums) in lanes.0.as_chunks::<GROUP>().0.iter().enumerate() {
                let at = (r * width + first + k) * (LANES / GROUP) + half;
                unusable |= add_group::<V>(sums, &mut fixed[at], bound);
            }
        }
    }
    unusable
}

/// Adds Σ_events u of at most eight rows: first lane by lane over the vectors, then over lanes.
#[inline(always)]
fn bias_gradient<V: Vector>(
    u: &[Lanes],
    vectors: usize,
    bound: f32,
    fixed: &mut [i64; GROUP],
) -> bool {
    let mut sums = [V::splat(0.0); GROUP];
    for (row, sum) in u.chunks_exact(vectors).zip(&mut sums) {
        for lanes in row {
            *sum = V::add(*sum, V::load(lanes));
        }
    }
    add_group::<V>(&V::sum_lanes(&sums), fixed, bound)
}
