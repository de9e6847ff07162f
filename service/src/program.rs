//! What every `main` does: read the command line, bind, announce, serve, exit.

use std::error::Error;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cli::{self, Action, DoctorCall, ProgramFlags, Startup, Task, UsageError};
use super::config::{EX_USAGE, environment};
use super::control::{ControlCall, ControlHandler, ControlSocket, ProcessFacts};
use super::doctor::{self, DoctorReport, Examination};
use super::greeting::{Greeting, explain_drain};
use super::hash_password::PasswordHasher;
use super::health::Probe;
use super::listen::{ActivationError, Inheritance, ListenAddr, inherited_from_systemd};
use super::operate::Operate;
use super::printable::printable;
use super::program_config::Configuration;
use super::progress_line::ProgressLine;
use super::reload::{ReloadFamilies, Reloads};
use super::shutdown::{Shutdown, Signals};
use super::takeover::{Handover, ProcessIdentity};
use super::terminal::TerminalStyle;
#[cfg(feature = "top")]
use super::top::TopCall;
use super::{build_info, descriptors, log, runtime, shutdown, umask};

/// How long the end of the process waits for work on blocking threads. A reconcile is not worth
/// waiting for, and a change of the store may be interrupted at any point.
const BLOCKING_DRAIN: Duration = Duration::from_secs(1);

/// The exit code for output that cannot be written (`EX_IOERR` of sysexits.h).
const EX_IOERR: u8 = 74;

/// A program: its name, its flags, its configuration, and the server that these make.
pub trait Program {
    /// The name of the executable.
    const NAME: &'static str;
    /// What it is, for `--help`.
    const ABOUT: &'static str;
    /// The flags that only this program has.
    type Flags: ProgramFlags;
    /// Its configuration.
    type Config: Configuration;
    /// The server once it is bound.
    type Server: Server<Operator: Operate<Config = Self::Config>>;
    /// Why it could not be bound.
    type Error: Error + 'static;

    /// Binds every address and opens everything else, so that all that can fail at the start fails
    /// here.
    /// Sockets that another process has bound come from `inheritance`.
    fn bind(
        config: Self::Config,
        inheritance: &Inheritance,
    ) -> impl Future<Output = Result<Self::Server, Self::Error>>;

    /// What `doctor` tries of this configuration, beside the process itself.
    fn examinations(config: &Self::Config) -> Vec<Examination>;
}

/// A server that has bound its addresses and serves nothing yet.
pub trait Server {
    /// What acts on it while it serves.
    type Operator: Operate;

    /// Where clients are served, with the ports that were chosen for port 0.
    fn addresses(&self) -> &[ListenAddr];

    /// Where metrics and probes have a listener of their own.
    fn metrics_address(&self) -> Option<&ListenAddr>;

    /// What a person at a terminal is told at the start.
    fn greeting(&self) -> Greeting;

    /// What else the operator should know, in lines.
    fn hints(&self) -> Option<&str> {
        None
    }

    /// What acts on it while it serves.
    fn operator(&self) -> Self::Operator;

    /// Where reloads are counted; `None` where nothing is recorded.
    fn reload_families(&self) -> Option<ReloadFamilies>;

    /// Serves until the shutdown, then drains. By the time that it first waits, it accepts connections.
    /// Returns whether every request in flight could end.
    fn serve(self, shutdown: Shutdown) -> impl Future<Output = bool>;
}

/// Runs a program to its end. To be called by `main`, once.
pub fn run<P: Program>() -> ExitCode {
    umask::set();
    let (name, words) = ((P::NAME, P::ABOUT), std::env::args_os());
    match cli::read::<P::Flags, P::Config>(name, words, environment()) {
        Ok(Action::Serve(serve)) => {
            let (config, startup) = *serve;
            serve_with::<P>(config, startup)
        }
        Ok(Action::Doctor(call)) => diagnose::<P>(*call),
        #[cfg(feature = "top")]
        Ok(Action::Top(call)) => show::<P>(*call),
        Ok(Action::Probe(probe)) => check::<P>(&probe),
        Ok(Action::Control(call)) => ask::<P>(&call),
        Ok(Action::Task(task)) => perform::<P>(*task),
        Ok(Action::HashPassword(hasher)) => hash_password::<P>(hasher),
        Ok(Action::Print(text)) => print::<P>(&text),
        Err(UsageError::Arguments(error)) => {
            let printed = error.print();
            // `--help` and `--version` come as errors, too, and go to stdout.
            if error.use_stderr() {
                ExitCode::from(EX_USAGE)
            } else {
                written::<P>(printed.and_then(|()| io::stdout().flush()))
            }
        }
        // The configuration, a socket or a page that is to be shown.
        Err(error) => {
            report::<P>(&error.to_string());
            ExitCode::from(EX_USAGE)
        }
    }
}

fn serve_with<P: Program>(mut config: P::Config, startup: Startup<P::Config>) -> ExitCode {
    // Before anything is opened: what is open already is systemd's.
    let inheritance = match inherited() {
        Ok(inheritance) => inheritance,
        Err(error) => return cannot_start::<P>(&error),
    };
    // Kept to the end: what is logged last is written when it is dropped.
    let log = match log::init(config.logging()) {
        Ok(log) => log,
        Err(error) => return cannot_start::<P>(&error),
    };
    let (started, control) = (Instant::now(), config.control().socket.clone());
    let drain = config.limits().drain;
    // After the log is set up: `fit` may have to warn.
    let limits = config.limits();
    (limits.connections, limits.streams) = descriptors::fit(limits.connections, limits.streams);
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_start::<P>(&error),
    };
    let code = runtime.block_on(async {
        // Before anything is bound: a signal during a slow start must not kill the process.
        let Signals {
            shutdown,
            trigger,
            mut hangup,
        } = match shutdown::signals() {
            Ok(signals) => signals,
            Err(error) => return cannot_start::<P>(&error),
        };
        let identity = ProcessIdentity {
            program: P::NAME,
            version: build_info::VERSION,
            refusal: config.refuses_takeover(),
        };
        let begun =
            Handover::begin(identity, config.control(), startup.take_over, &inheritance).await;
        let mut handover = match begun {
            Ok(handover) => handover,
            Err(error) => return cannot_start::<P>(&error),
        };
        let server = match P::bind(config, &inheritance).await {
            Ok(server) => server,
            Err(error) => return cannot_start::<P>(&error),
        };
        let control = match &control {
            None => None,
            Some(path) => match ControlSocket::bind(path, &inheritance).await {
                Ok(socket) => Some(socket),
                Err(error) => return cannot_start::<P>(&error),
            },
        };
        if let Err(error) = handover.ready().await {
            return cannot_start::<P>(&error);
        }
        let (operator, families) = (server.operator(), server.reload_families());
        let notifier = handover.notifier();
        let reloads = Reloads::start(
            startup,
            operator.clone(),
            families,
            (log.control().clone(), notifier),
            shutdown.clone(),
        );
        announce::<P>(&server, control.as_ref());
        tokio::spawn(explain_drain(operator.clone(), drain, shutdown.clone()));
        let control = control.map(|socket| {
            let handler = ControlHandler {
                facts: ProcessFacts {
                    program: P::NAME,
                    started,
                    listeners: server.addresses().iter().map(ToString::to_string).collect(),
                    metrics_listener: server.metrics_address().map(ToString::to_string),
                },
                operator,
                reloads: reloads.clone(),
                log: log.control().clone(),
                trigger: Arc::clone(&trigger),
                shutdown: shutdown.clone(),
            };
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = socket.serve(handler) => {}
                    // Another process has the socket now, and clients are to reach that one.
                    () = shutdown.handed_over() => {}
                }
            })
        });
        tokio::spawn(async move {
            // Signals that come during a reload make one more of it, however many they are.
            while hangup.recv().await.is_some() {
                let _ = reloads.reload("SIGHUP").await;
            }
        });
        let serve = server.serve(shutdown.clone());
        let drained = handover.serve(serve, trigger, shutdown).await;
        if let Some(control) = control {
            // To the very end: a process that drains can be asked. Then its file is removed.
            control.abort();
            let _ = control.await;
        }
        if drained {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    });
    runtime.shutdown_timeout(BLOCKING_DRAIN);
    code
}

/// The sockets that systemd has bound.
fn inherited() -> Result<Inheritance, ActivationError> {
    let [pid, count] = ["LISTEN_PID", "LISTEN_FDS"].map(|name| std::env::var(name).ok());
    let sockets = inherited_from_systemd(pid.as_deref(), count.as_deref())?;
    Ok(Inheritance::from_systemd(sockets))
}

fn diagnose<P: Program>(call: DoctorCall<P::Config>) -> ExitCode {
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_start::<P>(&error),
    };
    let mut config = call.config;
    let limits = *config.limits();
    let found = runtime.block_on(async {
        let mut all = vec![doctor::process(limits, config.control().clone())];
        all.extend(P::examinations(&config));
        let mut line = ProgressLine::new("doctor");
        doctor::examine(all, |subject, done, total| {
            line.show_step(subject, done, total);
        })
        .await
    });
    // A name that is still being resolved, or a disk that hangs, is not waited for.
    runtime.shutdown_background();
    let report = DoctorReport::new(P::NAME, found);
    match print::<P>(&report.print(call.format)) {
        ExitCode::SUCCESS => ExitCode::from(report.exit_code(call.strict)),
        failed => failed,
    }
}

#[cfg(feature = "top")]
fn show<P: Program>(call: TopCall) -> ExitCode {
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_start::<P>(&error),
    };
    if call.once {
        let (text, is_read) = runtime.block_on(call.once());
        return match print::<P>(&text) {
            ExitCode::SUCCESS if !is_read => ExitCode::FAILURE,
            code => code,
        };
    }
    let shown = runtime.block_on(call.run());
    // A page that is being read is not waited for.
    runtime.shutdown_background();
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::<P>(&log::causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn check<P: Program>(probe: &Probe) -> ExitCode {
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_start::<P>(&error),
    };
    match runtime.block_on(probe.check()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::<P>(&format!("{probe}: {}", log::causes(&error)));
            ExitCode::FAILURE
        }
    }
}

fn ask<P: Program>(call: &ControlCall) -> ExitCode {
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_start::<P>(&error),
    };
    match runtime.block_on(call.call(report::<P>)) {
        Ok(text) => print::<P>(&text),
        Err(error) => {
            report::<P>(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn perform<P: Program>(task: impl Task) -> ExitCode {
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_start::<P>(&error),
    };
    let end = runtime.block_on(task.perform());
    // What it did is done; a disk that hangs is not waited for.
    runtime.shutdown_timeout(BLOCKING_DRAIN);
    let printed = print::<P>(&end.output);
    if let Some(failure) = &end.failure {
        report::<P>(failure);
    }
    if end.is_success {
        printed
    } else {
        ExitCode::FAILURE
    }
}

fn hash_password<P: Program>(hasher: PasswordHasher) -> ExitCode {
    match hasher.run() {
        Ok(hash) => print::<P>(&format!("{hash}\n")),
        Err(error) => {
            report::<P>(&error.to_string());
            // As for any wrong input; what cannot be read is a failure.
            if error.is_about_password() {
                ExitCode::from(EX_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn print<P: Program>(text: &str) -> ExitCode {
    // Not `print!`, which panics if the reader is gone.
    let mut stdout = io::stdout();
    let written = stdout.write_all(text.as_bytes());
    self::written::<P>(written.and_then(|()| stdout.flush()))
}

/// The exit code for output that was to be written.
fn written<P: Program>(output: io::Result<()>) -> ExitCode {
    let Err(error) = output else {
        return ExitCode::SUCCESS;
    };
    // A reader that has left has read what it wants.
    if error.kind() != io::ErrorKind::BrokenPipe {
        report::<P>(&format!("cannot write the output: {error}"));
    }
    ExitCode::from(EX_IOERR)
}

/// Greets a person, and prints the addresses, so that the caller that asked for port 0 learns the port.
fn announce<P: Program>(server: &P::Server, control: Option<&ControlSocket>) {
    let is_greeted = server.greeting().show(P::NAME, build_info::VERSION);
    // The reader of stdout may be gone, which is no reason not to serve.
    let mut stdout = io::stdout().lock();
    // Who reads both at one terminal has been told in other words.
    if !(is_greeted && stdout.is_terminal()) {
        for address in server.addresses() {
            let _ = writeln!(stdout, "listening on {address}");
        }
        if let Some(address) = server.metrics_address() {
            let _ = writeln!(stdout, "metrics on {address}");
        }
    }
    if let Some(control) = control {
        let _ = writeln!(stdout, "control on {}", control.address());
    }
    if let Some(hints) = server.hints() {
        let _ = writeln!(stdout, "{hints}");
    }
}

fn cannot_start<P: Program>(error: &dyn Error) -> ExitCode {
    report::<P>(&format!("cannot start: {}", log::causes(error)));
    ExitCode::FAILURE
}

/// Straight to stderr: the log may be off, or not yet there.
fn report<P: Program>(message: &str) {
    let name = TerminalStyle::of_stderr().error(&format!("{}:", P::NAME));
    // A path or an address may hold anything.
    let _ = writeln!(io::stderr(), "{name} {}", printable(message));
}
