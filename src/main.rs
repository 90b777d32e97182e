//! Parses the command line, opens the communicator, runs the command, and exits with its code.

use clap::Parser;
use clap::error::ErrorKind;
use std::io::Write;
use std::process::ExitCode;
use taiga_flow::cli::Cli;
use taiga_flow::comm::{self, Communicator, SingleRank, is_root};
use taiga_flow::error::{Error, Fault};
use taiga_flow::memory;
use taiga_flow::terminal::{print_error, printable, written};
use taiga_flow_gpu::panics;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return match written(printed) {
                Err(error) if asked => report(&error),
                _ => ExitCode::from(if asked { 0 } else { 2 }),
            };
        }
    };
    start_logging(&cli);
    comm::survive_file_size_limit();
    report_panics();
    let comm: Box<dyn Communicator> = if cli.command.is_parallel() {
        match comm::start(cli.deadline()) {
            Ok(comm) => comm,
            Err(error) => return report(&error),
        }
    } else {
        Box::new(SingleRank)
    };
    comm::mark_start(comm.as_ref());
    // A panic is a bug; under MPI the hook has already ended all ranks.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cli.run(comm.as_ref())));
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => leave(comm.as_ref(), &error),
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(text) if memory::is_lack_of_threads(text) => {
                leave(comm.as_ref(), &lack_of_threads(text))
            }
            _ => ExitCode::from(1),
        },
    }
}

fn lack_of_threads(text: &str) -> Error {
    let advice = format!("{}; see also ulimit -u", memory::ADVICE);
    Fault::new("a thread could not be started").found(text).advice(advice).environment()
}

/// Prints an error and returns its exit code. An error that all ranks have ends them in order; any
/// other one ends them at once.
fn leave(comm: &dyn Communicator, error: &Error) -> ExitCode {
    if is_root(comm) || !error.is_shared() {
        print_error(error);
    }
    if comm.size() > 1 && !error.is_shared() {
        comm.abort(error.exit_code());
    }
    ExitCode::from(error.exit_code())
}

/// Prints an error raised before the ranks are connected; a shared one is printed by rank 0.
fn report(error: &Error) -> ExitCode {
    if !error.is_shared() || comm::launched_rank() == 0 {
        print_error(error);
    }
    ExitCode::from(error.exit_code())
}

/// Prints panics, except those that the GPU engine turns into errors.
fn report_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panics::note(panic) {
            print(panic);
        }
    }));
}

fn start_logging(cli: &Cli) {
    let level = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // Of other crates, only errors are logged.
    let filter = format!("error,taiga_flow={level},taiga_flow_gpu={level}");
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("TAIGA_FLOW_LOG", filter))
        .format(|out, record| {
            let (time, style) = (out.timestamp(), out.default_level_style(record.level()));
            let text = record.args().to_string();
            writeln!(out, "[{time} {style}{:<5}{style:#}] {}", record.level(), printable(&text))
        })
        .init();
}
