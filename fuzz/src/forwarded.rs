//! What was forwarded, for other programs to read.

use std::fs::OpenOptions;
use std::io::Write as _;

use proxy::fuzz::Message;

/// Appends a message to the file that the environment names, if it names one: a line of what it is, its
/// bytes and its body.
pub fn record(kind: &str, message: &Message) {
    let Some(path) = std::env::var_os("FORWARDED") else {
        return;
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let (written, body): (String, String) = (hex(&message.written), hex(&message.body));
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    writeln!(file, "{kind} {written}. {body}.").unwrap();
}
