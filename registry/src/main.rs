//! octoserve-registry: parse, bind, announce, serve, exit.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use registry::config::cli::{Cli, Command, ServeArgs};
use registry::config::{Config, Fields};
use registry::server;
use registry::service::config::{ConfigError, EX_USAGE, print};
use registry::service::{log, shutdown};

// Quicker than the system's at what a server does: many small pieces, from several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                EX_USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    run(cli.into_command()).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "octoserve-registry: {error:#}");
        if error.is::<ConfigError>() {
            EX_USAGE.into()
        } else {
            ExitCode::FAILURE
        }
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => {
            let (config, fields) = Config::load(args.sources())?;
            start(&args, config, &fields)?;
        }
        Command::Health(args) => {
            let probe = match &args.url {
                Some(probe) => probe.clone(),
                None => Config::load(args.sources())?.0.probe(),
            };
            runtime()?
                .block_on(probe.check())
                .with_context(|| probe.to_string())?;
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "octoserve-registry",
                &mut io::stdout(),
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start(args: &ServeArgs, config: Config, fields: &Fields) -> anyhow::Result<()> {
    if args.print_config {
        write!(io::stdout(), "{}", print(fields))?;
    }
    if args.print_config || args.check {
        return Ok(());
    }
    log::init(&fields.logging)?;
    runtime()?.block_on(async {
        let stop = shutdown::signals()?;
        let bound = server::bind(config).await?;
        let mut stdout = io::stdout().lock();
        for address in bound.addresses() {
            writeln!(stdout, "listening on {address}")?;
        }
        if let Some(address) = bound.metrics_address() {
            writeln!(stdout, "metrics on {address}")?;
        }
        drop(stdout);
        Ok(bound.serve(stop).await?)
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}
