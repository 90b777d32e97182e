//! A simple fuzzer: mutates valid inputs from a seeded stream, and detects panics, long run times
//! and large allocations.
//!
//! It has no coverage feedback and needs no tool to be installed.

use super::failures::keep_failure;
use super::inject::{is_soak, print_line};
use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use taiga_flow_gpu::random::Stream;

/// Inputs of a fuzz target have some kilobytes at most, so no allocation may be larger.
const LARGEST_ALLOCATION: usize = 64 << 20;
const LONGEST: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(4);
const SOAK_INPUTS: u64 = 1_000_000;

struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(bytes: usize) {
    // The cell no longer exists in a thread that ends.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

// SAFETY: every call is passed unchanged to the system's allocator; only sizes are recorded.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the arguments are those of this call, under the same contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the arguments are those of this call, under the same contract.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the arguments are those of this call, under the same contract.
        unsafe { System.realloc(old, layout, size) }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the arguments are those of this call, under the same contract.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Passes mutations of `corpus` to `feed`: for some seconds, or a million in a soak.
pub fn fuzz(target: &str, seed: u64, corpus: &[Vec<u8>], mut feed: impl FnMut(&[u8])) {
    let since = Instant::now();
    let (mut inputs, mut longest, mut largest) = (0, Duration::ZERO, 0);
    while if is_soak() { inputs < SOAK_INPUTS } else { since.elapsed() < SHORT } {
        let input = mutated(corpus, Stream::new(seed, target, &[inputs]));
        LARGEST.set(0);
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| feed(&input)));
        let (took, allocated) = (started.elapsed(), LARGEST.get());
        if let Some(reason) = reason_of_failure(outcome.err().as_deref(), took, allocated) {
            let context = format!("{target}, seed {seed}, input {inputs}: {reason}");
            let name = format!("{}-{seed}-{inputs}", target.replace(' ', "-"));
            let kept = keep_failure(&name, &input, &context);
            print_line(&kept);
            panic!("{kept}: {:?}", String::from_utf8_lossy(&input));
        }
        (longest, largest) = (longest.max(took), largest.max(allocated));
        inputs += 1;
    }
    print_line(&format!(
        "fuzz: {target}, seed {seed}: {inputs} inputs, at most {} ms and {} kB at once",
        longest.as_millis(),
        largest / 1000
    ));
}

/// Returns the reason if an input has failed: a panic, a long time, or a large allocation.
fn reason_of_failure(
    panic: Option<&(dyn Any + Send)>,
    took: Duration,
    allocated: usize,
) -> Option<String> {
    if let Some(panic) = panic {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        return Some(format!("panic: {}", text.unwrap_or("without a text")));
    }
    if took >= LONGEST {
        return Some(format!("took {took:?}, at most {LONGEST:?} allowed"));
    }
    (allocated >= LARGEST_ALLOCATION)
        .then(|| format!("{allocated} bytes at once, at most {LARGEST_ALLOCATION} allowed"))
}

/// Returns a valid input with one to six changes.
fn mutated(corpus: &[Vec<u8>], stream: Stream) -> Vec<u8> {
    let mut drawn = 0;
    let mut draw = |below: usize| {
        drawn += 1;
        (stream.bits(drawn) % below.max(1) as u64) as usize
    };
    let mut bytes = corpus[draw(corpus.len())].clone();
    for _ in 0..=draw(6) {
        let at = draw(bytes.len());
        match draw(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << draw(8),
            1 if !bytes.is_empty() => bytes[at] = draw(256) as u8,
            2 => bytes.truncate(at),
            3 => {
                let more: Vec<u8> = (0..draw(16)).map(|_| draw(256) as u8).collect();
                bytes.splice(at..at, more);
            }
            4 => {
                let end = (at + draw(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + draw(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let times = if draw(20) == 0 { draw(200) } else { 1 };
                bytes.splice(at..at, copy.repeat(times));
            }
            6 => {
                let other = &corpus[draw(corpus.len())];
                let from = draw(other.len());
                let end = (from + draw(128)).min(other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            _ => replace_number(&mut bytes, at, draw(NUMBERS.len())),
        }
    }
    bytes
}

/// Numbers that often cause errors in programs.
const NUMBERS: [&str; 20] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e309",
    "-1e309",
    "nan",
    "inf",
    "-0.0",
    "5e-324",
    "0.1",
    "1000000",
];

/// Replaces the next number at or after `from` by another one.
fn replace_number(bytes: &mut Vec<u8>, from: usize, which: usize) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = bytes[from.min(bytes.len())..].iter().position(is_digit) else { return };
    let start = from + start;
    let length = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
    bytes.splice(start..start + length, NUMBERS[which].bytes());
}
