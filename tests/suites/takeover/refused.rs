//! What is not a takeover: garbage, other versions, other users, processes that die half way. The running
//! process goes on each time, and the other one says why it does not serve.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use harness::octoserve::{Launch, Program, Server};
use harness::process::{OutputStream, Signal};
use harness::{poll, tools};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::timeout;

use super::{DEADLINE, Generations, ended, said, serves};

/// Another user than the one of the tests.
const NOBODY: u32 = 65534;

/// The other side of a takeover, word for word.
struct Peer {
    stream: BufReader<UnixStream>,
}

impl Peer {
    async fn connect(path: &Path) -> Result<Self> {
        let stream = BufReader::new(UnixStream::connect(path).await?);
        Ok(Self { stream })
    }

    async fn say(&mut self, message: &Value) -> Result<()> {
        let line = format!("{message}\n");
        Ok(self.stream.write_all(line.as_bytes()).await?)
    }

    /// The next message; `None` once the other side has closed.
    async fn hear(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        let read = timeout(DEADLINE, self.stream.read_line(&mut line)).await;
        Ok(match read? {
            Ok(length) if length > 0 => Some(serde_json::from_str(&line)?),
            _ => None,
        })
    }

    /// As far as it gets the sockets, which it closes, once no other one is taking over.
    async fn begun(path: &Path) -> Result<Self> {
        poll::until("a takeover begins", DEADLINE, async || {
            let mut peer = Self::connect(path).await?;
            peer.say(&hello(1)).await?;
            let first = peer.hear().await?.context("no hello")?;
            assert_eq!(first["hello"]["protocol"], 1, "{first}");
            let second = peer.hear().await?.context("no estate")?;
            Ok(match second["estate"]["sockets"].as_array() {
                Some(sockets) => {
                    assert_eq!(sockets.len(), 6);
                    Some(peer)
                }
                None => None,
            })
        })
        .await
    }

    /// Says why the other side refuses.
    async fn refusal(&mut self) -> Result<String> {
        while let Some(message) = self.hear().await? {
            if let Some(reason) = message["refused"]["reason"].as_str() {
                return Ok(reason.to_owned());
            }
        }
        anyhow::bail!("closed without a reason")
    }
}

fn hello(protocol: u32) -> Value {
    json!({"hello": {"protocol": protocol, "program": "octoserve", "version": "9.9"}})
}

/// Runs octoserve with `--take-over` and this configuration, to its end.
async fn attempt(configuration: &str, under: &[&str]) -> Result<Output> {
    let directory = TempDir::with_prefix("octoserve-")?;
    let file = directory.path().join("octoserve.yaml");
    std::fs::write(&file, configuration)?;
    // Another user reads it, too.
    for path in [directory.path(), &file] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    let mut words: Vec<OsString> = under.iter().map(Into::into).collect();
    words.push(Program::Octoserve.path()?.into());
    words.extend(["--take-over", "--config"].map(OsString::from));
    words.push(file.into());
    let program = words.remove(0);
    tools::attempt(&program.to_string_lossy(), &words).await
}

/// Fails with code 1, and says this in one line.
fn failed(output: &Output, reason: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains(reason), "{said} lacks {reason}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines = said
        .lines()
        .filter(|line| line.starts_with("octoserve: cannot start: "));
    assert_eq!(lines.count(), 1, "{said}");
    ensure!(output.stdout.is_empty(), "it announced an address");
    Ok(())
}

/// A server that still serves hands over after all.
async fn as_it_was(generations: &Generations, mut server: Server) -> Result<()> {
    serves(&server).await?;
    // It may not have seen the end of the last one that asked. This one's end can be told from others'.
    let mut last = Peer::begun(&generations.path("take-over.sock")).await?;
    last.say(&hello(1)).await?;
    said(&mut server, "said `hello` instead of `ready`").await?;
    ensure!(generations.path("main.sock").exists());
    let new = generations.next(&mut server).await?;
    ended(server).await?;
    serves(&new).await
}

#[tokio::test]
async fn a_process_that_dies_half_way_leaves_the_old_one_as_it_was() -> Result<()> {
    let generations = Generations::new("").await?;
    let mut server = generations.first().await?;
    let path = generations.path("take-over.sock");
    // With the sockets; when it could serve; and when it was told to.
    for last in [None, Some("ready"), Some("go")] {
        let mut peer = Peer::begun(&path).await?;
        if last.is_some() {
            peer.say(&json!("ready")).await?;
        }
        if last == Some("go") {
            assert_eq!(peer.hear().await?, Some(json!("go")));
        }
        drop(peer);
    }
    said(&mut server, "instead of saying `ready`").await?;
    as_it_was(&generations, server).await
}

#[tokio::test]
async fn a_new_process_that_cannot_start_leaves_the_old_one_as_it_was() -> Result<()> {
    let generations = Generations::new("").await?;
    let server = generations.first().await?;
    let configuration = &generations.configuration;
    let wrong = configuration.replace("drain: 0s", "drain: soon");
    let output = attempt(&wrong, &[]).await?;
    assert_eq!(output.status.code(), Some(64));
    // What fails only after the sockets have come: an address that another one has.
    let other = TcpListener::bind("127.0.0.1:0").await?;
    let taken = other.local_addr()?;
    let wrong = configuration.replace(
        "metrics: {listen: '127.0.0.1:0'",
        &format!("metrics: {{listen: '{taken}'"),
    );
    failed(
        &attempt(&wrong, &[]).await?,
        &format!("cannot listen on {taken}"),
    )?;
    as_it_was(&generations, server).await
}

#[tokio::test]
async fn one_process_at_a_time_takes_over() -> Result<()> {
    let generations = Generations::new("").await?;
    let server = generations.first().await?;
    let first = Peer::begun(&generations.path("take-over.sock")).await?;
    let output = attempt(&generations.configuration, &[]).await?;
    failed(
        &output,
        "refuses: yet another process is taking over just now",
    )?;
    drop(first);
    as_it_was(&generations, server).await
}

#[tokio::test]
async fn another_protocol_is_refused_by_either_side() -> Result<()> {
    let generations = Generations::new("").await?;
    let server = generations.first().await?;
    let mut peer = Peer::connect(&generations.path("take-over.sock")).await?;
    peer.say(&hello(2)).await?;
    let reason = peer.refusal().await?;
    ensure!(
        reason.contains("version 9.9") && reason.contains("restart instead"),
        "{reason}"
    );
    assert_eq!(peer.hear().await?, None);
    let mut peer = Peer::connect(&generations.path("take-over.sock")).await?;
    peer.say(&json!({"hello": {"protocol": 1, "program": "other", "version": "1"}}))
        .await?;
    let reason = peer.refusal().await?;
    ensure!(reason.contains("`other`"), "{reason}");
    as_it_was(&generations, server).await?;

    // The other way round: a running process of a later version.
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path)?;
    let later = async {
        let (stream, _) = listener.accept().await?;
        let mut peer = Peer {
            stream: BufReader::new(stream),
        };
        let asked = peer.hear().await?.context("nothing")?;
        assert_eq!(asked["hello"]["program"], "octoserve");
        peer.say(&hello(2)).await?;
        // It says no more.
        assert_eq!(peer.hear().await?, None);
        anyhow::Ok(())
    };
    let before = generations.path("take-over.sock").display().to_string();
    let configuration = generations
        .configuration
        .replace(&before, &path.display().to_string());
    let (output, later) = tokio::join!(attempt(&configuration, &[]), later);
    later?;
    failed(
        &output?,
        "version 9.9, hands over by protocol 2, and this one by protocol 1",
    )
}

#[tokio::test]
async fn garbage_and_silence_harm_nobody() -> Result<()> {
    let generations = Generations::new("").await?;
    let mut server = generations.first().await?;
    let path = generations.path("take-over.sock");
    let endless = vec![b'x'; 600 << 10];
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\n",
        b"{\"hello\":7}\n",
        b"\"serving\"\n",
        b"\xff\xfe\x00\n",
        &endless,
    ] {
        let mut peer = Peer::connect(&path).await?;
        // It may close before it has read all.
        let _ = peer.stream.write_all(garbage).await;
        let mut rest = Vec::new();
        let _ = timeout(DEADLINE, peer.stream.read_to_end(&mut rest)).await?;
    }
    said(&mut server, "does not speak the protocol of a takeover").await?;
    said(&mut server, "said `serving` instead of `hello`").await?;
    said(&mut server, "is longer than").await?;
    // Silent ones do not keep others out.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(Peer::connect(&path).await?);
    }
    as_it_was(&generations, server).await?;
    drop(silent);
    Ok(())
}

#[tokio::test]
async fn without_a_running_process_there_is_nothing_to_take_over() -> Result<()> {
    let generations = Generations::new("").await?;
    let reason = format!(
        "no process to take over from at {}; start without --take-over",
        generations.path("take-over.sock").display()
    );
    failed(&attempt(&generations.configuration, &[]).await?, &reason)?;
    // A file that a killed process has left.
    let mut server = generations.first().await?;
    server.process().kill()?;
    ensure!(generations.path("take-over.sock").exists());
    failed(&attempt(&generations.configuration, &[]).await?, &reason)?;
    // One that starts without the flag replaces it.
    serves(&generations.first().await?).await?;
    let none = generations.configuration.replace("control: ", "# ");
    failed(
        &attempt(&none, &[]).await?,
        "needs control.take_over_socket",
    )
}

#[tokio::test]
async fn a_process_that_hangs_is_given_up() -> Result<()> {
    let generations = Generations::new("").await?;
    let mut server = generations.first().await?;
    server.process().freeze().await?;
    let output = attempt(&generations.configuration, &[]).await?;
    failed(&output, "did not say `hello` within 10s")?;
    server.process().signal(Signal::CONT)?;
    as_it_was(&generations, server).await
}

#[tokio::test]
async fn another_user_gets_nothing() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the tests change users"
    );
    let generations = Generations::new("").await?;
    let server = generations.first().await?;
    let path = generations.path("take-over.sock");
    let certificate = generations.certificate.path();
    let certificates = certificate.parent().context("no directory")?;
    let setpriv = |user: u32| {
        let user = user.to_string();
        [
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={user}"),
            "--clear-groups".to_owned(),
        ]
    };
    let words = setpriv(NOBODY);
    let as_nobody: Vec<&str> = words.iter().map(String::as_str).collect();
    let open = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    };
    open(generations.directory.path(), 0o777)?;
    open(certificates, 0o755)?;
    open(&generations.certificate.key(), 0o644)?;
    // The socket's mode keeps others out, and so does its owner.
    let output = attempt(&generations.configuration, &as_nobody).await?;
    failed(&output, "Permission denied")?;
    open(&path, 0o666)?;
    let output = attempt(&generations.configuration, &as_nobody).await?;
    failed(&output, "of user 0, and this one of user 65534")?;
    // A client that does not mind is refused by the running process itself.
    let script = "import socket, sys\n\
         s = socket.socket(socket.AF_UNIX)\n\
         s.connect(sys.argv[1])\n\
         try: s.sendall(b'{\"hello\":{\"protocol\":1,\"program\":\"octoserve\",\"version\":\"1\"}}\\n')\n\
         except OSError: pass\n\
         print(s.recv(65536).decode())\n";
    let socket = path.display().to_string();
    let mut words = as_nobody[1..].to_vec();
    words.extend(["/usr/bin/python3", "-c", script, &socket]);
    let heard = tools::run("setpriv", &words).await?;
    ensure!(
        heard.contains("of user 65534, and this one of user 0"),
        "{heard}"
    );
    ensure!(!heard.contains("estate"), "{heard}");
    open(&path, 0o600)?;
    as_it_was(&generations, server).await?;

    // root does not take over from somebody else, either: it would believe what that one passes.
    let theirs = format!("{}/theirs.sock", generations.directory.path().display());
    let configuration = format!(
        "listen: '127.0.0.1:0'\ncontrol: {{take_over_socket: {theirs}}}\n\
         upstreams: [{{name: main, replicas: ['{}']}}]\n",
        generations.registries[0].url("")
    );
    let file = generations.path("theirs.yaml");
    std::fs::write(&file, &configuration)?;
    open(&file, 0o644)?;
    let server = Launch::in_front_of(&generations.registries[0].url(""))
        .environment("OCTOSERVE_CONTROL_TAKE_OVER_SOCKET", &theirs)
        .under(setpriv(NOBODY).map(OsString::from).to_vec())
        .start()
        .await?;
    let output = attempt(&configuration, &[]).await?;
    failed(&output, "of user 65534, and this one of user 0")?;
    harness::client::Client::new(&server.url(""))?
        .read("/v2/")
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_registry_is_never_taken_over_and_says_why() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("s").display().to_string();
    let all_in_one = format!("control: {{take_over_socket: {socket}}}\nlisten: '127.0.0.1:0'\n");
    let lock = "locks its data directory";
    // One that would take over, with nobody there: the reason is the better one.
    failed(&attempt(&all_in_one, &[]).await?, lock)?;
    let mut server = Launch::all_in_one()
        .configuration(&all_in_one)
        .start()
        .await?;
    // A proxy asks a running one.
    let proxy = format!(
        "{all_in_one}upstreams: [{{name: main, replicas: ['{}']}}]\n",
        "http://127.0.0.1:9"
    );
    let output = attempt(&proxy, &[]).await?;
    failed(
        &output,
        "the other process refuses: a registry locks its data directory",
    )?;
    said(&mut server, "no takeover: this process goes on").await?;
    harness::client::Client::new(&server.url(""))?
        .read("/v2/")
        .await?;

    let data = directory.path().join("data");
    let words = ["--take-over".as_ref(), "--data".as_ref(), data.as_os_str()];
    let registry = Program::Registry.path()?;
    let output = tools::attempt(&registry.to_string_lossy(), &words).await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(stderr.contains(lock), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
    // Not even its data directory was touched.
    ensure!(!data.exists());
    let log = server.process().output(OutputStream::Stderr)?;
    ensure!(!log.contains("panic"), "{log}");
    Ok(())
}
