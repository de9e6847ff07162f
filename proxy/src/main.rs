//! `octoserve`: parse, bind, announce, serve, exit code.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use proxy::cli::{Action, Cli};
use proxy::server;
use service::config::EX_USAGE;
use service::health::Probe;
use service::{log, runtime, shutdown, umask};

// Takes the place of the system's allocator. As Rust's own it would be asked for an alignment with
// every allocation, which takes a longer way.
use mimalloc as _;

fn main() -> ExitCode {
    umask::set();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let failed = error.use_stderr();
            return ExitCode::from(if failed { EX_USAGE } else { 0 });
        }
    };
    match cli.resolve() {
        Ok(Action::Serve(config)) => serve(*config),
        Ok(Action::Ask(probe)) => ask(&probe),
        Ok(Action::Print(text)) => print(&text),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "octoserve: {error}");
            ExitCode::from(EX_USAGE)
        }
    }
}

fn ask(probe: &Probe) -> ExitCode {
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(probe.check()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = log::causes(&error);
            let _ = writeln!(std::io::stderr(), "octoserve: {probe}: {causes}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(config: proxy::config::Config) -> ExitCode {
    let _log = match log::init(&config.logging) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    runtime.block_on(async {
        let signals = match shutdown::signals() {
            Ok(signals) => signals,
            Err(error) => return fail(&error),
        };
        let bound = match server::bind(config).await {
            Ok(bound) => bound,
            Err(error) => return fail(&error),
        };
        announce(&bound);
        if bound.serve(signals).await {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    })
}

/// Whoever started us may have closed our stdout; that is no reason not to serve.
fn announce(bound: &server::Bound) {
    let mut stdout = std::io::stdout().lock();
    for address in bound.addresses() {
        let _ = writeln!(stdout, "listening on {address}");
    }
    if let Some(address) = bound.metrics_address() {
        let _ = writeln!(stdout, "metrics on {address}");
    }
}

/// Whatever the log's level is, and whoever reads it.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    let causes = log::causes(error);
    let _ = writeln!(std::io::stderr(), "octoserve: cannot start: {causes}");
    ExitCode::FAILURE
}
