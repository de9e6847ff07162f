//! A real Chromium without a window, driven by Debian's chromedriver over WebDriver
//! (<https://www.w3.org/TR/webdriver2/>).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{OutputStream, Process, wait_for_exit};
use crate::{poll, tools};

/// How long one command to the browser, or a change of a page, may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// A browser with one tab. Dropping it ends it.
pub struct Browser {
    // Fields are dropped in this order: the browser must end before its directory is removed. It ends
    // soon after the driver, because the two are connected by a pipe.
    _driver: Process,
    http: reqwest::Client,
    session: String,
    _directory: BrowserDirectory,
}

/// The directory of a browser. It is removed once no process of the browser is left that could write to it.
struct BrowserDirectory(TempDir);

impl Drop for BrowserDirectory {
    fn drop(&mut self) {
        for process in naming(self.0.path()) {
            // Of one that does not end, or that has ended just now, no more is expected.
            wait_for_exit(process, Duration::from_secs(5)).ok();
        }
    }
}

/// The processes that have a path in their command lines.
fn naming(path: &Path) -> Vec<Pid> {
    let path = path.to_string_lossy();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let naming = processes.filter(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*path)
    });
    let number = |process: std::fs::DirEntry| process.file_name().to_str()?.parse().ok();
    naming
        .filter_map(number)
        .filter_map(Pid::from_raw)
        .collect()
}

impl Browser {
    /// Starts one that knows loopback addresses alone: `evil.example` is 127.0.0.1, and no other name
    /// resolves.
    ///
    /// # Errors
    /// If Chromium or its driver is missing or does not start.
    pub async fn start() -> Result<Browser> {
        let directory = BrowserDirectory(TempDir::with_prefix("octoserve-browser-")?);
        let directory_path = directory.0.path();
        let (driver, port) = start_driver(directory_path).await?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(DEADLINE)
            .build()?;
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--remote-debugging-pipe",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-proxy-server",
            "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP * ~NOTFOUND, \
             EXCLUDE 127.0.0.1, EXCLUDE localhost",
            "--window-size=1280,1000",
            format!(
                "--user-data-dir={}",
                directory_path.join("profile").display()
            ),
        ]);
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": tools::find("chromium")?, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let driver_url = format!("http://127.0.0.1:{port}");
        let url = format!("{driver_url}/session");
        let session = send(&http, Method::POST, &url, Some(capabilities)).await?;
        let session = session["sessionId"].as_str().context("no session")?;
        Ok(Browser {
            session: format!("{url}/{session}"),
            _driver: driver,
            http,
            _directory: directory,
        })
    }

    /// Opens a URL, and waits until the document is loaded.
    ///
    /// # Errors
    /// If nothing responds there.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("url", json!({"url": url})).await?;
        Ok(())
    }

    /// Runs the body of a JavaScript function in the page, and returns what it returns.
    ///
    /// # Errors
    /// If it throws.
    pub async fn run(&self, script: &str) -> Result<Value> {
        let body = json!({"script": script, "args": []});
        self.post("execute/sync", body).await
    }

    /// The same for a text.
    ///
    /// # Errors
    /// If it throws, or returns anything else.
    pub async fn text(&self, script: &str) -> Result<String> {
        let value = self.run(script).await?;
        let text = value.as_str().map(str::to_owned);
        text.with_context(|| format!("no text: {value}"))
    }

    /// Waits until a JavaScript expression is true.
    ///
    /// # Errors
    /// If it throws, or is not true in time; with what the page shows then.
    pub async fn until(&self, expression: &str) -> Result<()> {
        let script = format!("return Boolean({expression})");
        let became = poll::until(expression, DEADLINE, async || {
            let value = self.run(&script).await?;
            Ok(value.as_bool().filter(|is_true| *is_true))
        });
        if let Err(error) = became.await {
            let shown = self.text("return document.body.innerText").await?;
            bail!("{error:#}\n{shown}");
        }
        Ok(())
    }

    /// Presses a key once: a character, or one of WebDriver's code points for other keys.
    ///
    /// # Errors
    /// If the browser does not take it.
    pub async fn press(&self, key: char) -> Result<()> {
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key},
        ]}]});
        self.post("actions", actions).await?;
        Ok(())
    }

    /// What the page wrote to its console since the last time, and what the browser did about it, such
    /// as a violated policy or a response that failed.
    ///
    /// # Errors
    /// If the browser does not say.
    pub async fn console(&self) -> Result<Vec<String>> {
        let log = self.post("se/log", json!({"type": "browser"})).await?;
        let entries = log.as_array().context("no log")?;
        let line = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        Ok(entries.iter().map(line).collect())
    }

    /// Sets the size of the page in CSS pixels; a phone also has touch and no scroll bars.
    ///
    /// # Errors
    /// If the browser does not take it.
    pub async fn resize(&self, width: u32, height: u32, is_phone: bool) -> Result<()> {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await
    }

    /// Prefers a dark or a light design, as a user's setting does.
    ///
    /// # Errors
    /// If the browser does not take it.
    pub async fn prefer(&self, scheme: &str) -> Result<()> {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features}))
            .await
    }

    /// Writes what is visible to a PNG file.
    ///
    /// # Errors
    /// If it cannot be taken or written.
    pub async fn screenshot(&self, path: &Path) -> Result<()> {
        let url = format!("{}/screenshot", self.session);
        let encoded = send(&self.http, Method::GET, &url, None).await?;
        let bytes = STANDARD.decode(encoded.as_str().context("no screenshot")?)?;
        std::fs::write(path, bytes).with_context(|| path.display().to_string())
    }

    /// Sends a command of Chromium's own protocol.
    async fn devtools(&self, command: &str, parameters: Value) -> Result<()> {
        let body = json!({"cmd": command, "params": parameters});
        self.post("goog/cdp/execute", body).await?;
        Ok(())
    }

    async fn post(&self, command: &str, body: Value) -> Result<Value> {
        let url = format!("{}/{command}", self.session);
        send(&self.http, Method::POST, &url, Some(body)).await
    }
}

/// Starts the driver. It chooses a port of IPv6, and exits where the same one of IPv4 is in use.
async fn start_driver(directory: &Path) -> Result<(Process, u16)> {
    let port = |line: &str| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse::<u16>().ok()
    };
    let mut attempts = 5;
    loop {
        let mut command = Command::new(tools::find("chromedriver")?);
        command
            .arg("--port=0")
            .env("HOME", directory)
            .env("TMPDIR", directory);
        let mut driver = Process::start("chromedriver", command, directory)?;
        match driver
            .announced(OutputStream::Stdout, "its port", port)
            .await
        {
            Ok(port) => return Ok((driver, port)),
            Err(error) if attempts == 0 => return Err(error),
            Err(_) => attempts -= 1,
        }
    }
}

/// Sends a command, and returns the value of its response.
async fn send(
    http: &reqwest::Client,
    method: Method,
    url: &str,
    body: Option<Value>,
) -> Result<Value> {
    let mut request = http.request(method, url);
    if let Some(body) = body {
        request = request
            .header("Content-Type", "application/json")
            .body(body.to_string());
    }
    let response = request.send().await?;
    let status = response.status();
    let mut response: Value = serde_json::from_slice(&response.bytes().await?)?;
    let value = response["value"].take();
    if !status.is_success() {
        bail!("chromedriver: {}: {}", value["error"], value["message"]);
    }
    Ok(value)
}
