//! Events as text or JSON, as is configured at the time.

use std::fmt;
use std::sync::Arc;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::control::LogState;

/// Writes events in the format that is configured at the time.
pub(super) struct LogFormatter {
    state: Arc<LogState>,
    text: Format<Full>,
    json: Format<Json>,
}

impl LogFormatter {
    pub(super) fn new(state: Arc<LogState>) -> LogFormatter {
        let format = tracing_subscriber::fmt::format();
        LogFormatter {
            // Text may go to a file, where escape sequences for colors are noise.
            text: format.clone().with_ansi(state.has_colours()),
            json: format
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
            state,
        }
    }
}

impl<S, N> FormatEvent<S, N> for LogFormatter
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.state.current().is_text {
            self.text.format_event(context, writer, event)
        } else {
            self.json.format_event(context, writer, event)
        }
    }
}
