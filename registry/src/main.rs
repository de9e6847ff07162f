//! `octoserve-registry`: parse, bind, announce, serve, exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use registry::config::Config;
use registry::config::cli::Action;
use registry::server;
use service::config::{EX_USAGE, environment};
use service::log::{self, LogConfig};
use service::{descriptors, runtime, shutdown, umask};

// Quicker than the system's at what a server does: many small pieces, from several threads.
// Takes the place of the system's allocator. As Rust's own it would be asked for an alignment with
// every allocation, which takes a longer way.
use mimalloc as _;

fn main() -> ExitCode {
    umask::set();
    let done = match Action::read(std::env::args_os(), environment()) {
        Ok(Action::Serve(config, logging)) => serve(*config, &logging),
        Ok(Action::Print(text)) => write!(io::stdout(), "{text}").map_err(Into::into),
        Ok(Action::Ask(probe)) => runtime::build().map_err(Into::into).and_then(|runtime| {
            let asked = runtime.block_on(probe.check());
            asked.with_context(|| probe.to_string())
        }),
        Err(error) => {
            let _ = write!(io::stderr(), "{error}");
            return EX_USAGE.into();
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "octoserve-registry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut config: Config, logging: &LogConfig) -> anyhow::Result<()> {
    let _log = log::init(logging)?;
    config.limits.connections = descriptors::fit(config.limits.connections);
    let runtime = runtime::build()?;
    let served = runtime.block_on(async {
        let stop = shutdown::signals()?;
        let bound = server::bind(config).await?;
        let api = bound.addresses().iter();
        let api = api.map(|at| format!("listening on {at}\n"));
        let page = bound.metrics_address();
        let page = page.map(|at| format!("metrics on {at}\n"));
        // Whoever started us may have closed our stdout; that is no reason not to serve.
        let _ = write!(io::stdout(), "{}", api.chain(page).collect::<String>());
        Ok(bound.serve(stop).await?)
    });
    // Counting a large store is not worth waiting for; every change of it can be interrupted.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}
