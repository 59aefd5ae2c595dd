//! Server-sent events, read from a stream that is cut anywhere:
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>. Only
//! what our own server sends is needed: lines that end with LF, one line of data an event. Pure.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Empty for a line of the log.
    pub name: String,
    pub id: String,
    pub data: String,
}

/// Bytes that may stand between two ends of a line: a line of a log and what JSON makes of it.
const LINE_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sends what is no stream of events")]
pub struct NotEvents;

#[derive(Default)]
pub struct Events {
    rest: Vec<u8>,
    event: Event,
}

impl Events {
    /// The events that end within these bytes.
    ///
    /// # Errors
    /// When a line never ends, or is no UTF-8.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, NotEvents> {
        let mut found = Vec::new();
        let mut pieces = bytes.split_inclusive(|byte| *byte == b'\n');
        for piece in &mut pieces {
            self.rest.extend_from_slice(piece);
            if self.rest.len() > LINE_BYTES {
                return Err(NotEvents);
            }
            if self.rest.pop_if(|byte| *byte == b'\n').is_none() {
                break;
            }
            let line = String::from_utf8(std::mem::take(&mut self.rest)).map_err(|_| NotEvents)?;
            found.extend(self.line(&line));
        }
        Ok(found)
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            return Some(std::mem::take(&mut self.event)).filter(|event| !event.data.is_empty());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "event" => self.event.name = value,
            "id" => self.event.id = value,
            "data" => self.event.data = value,
            // A comment, or when to come again.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_wherever_the_stream_is_cut() {
        let text =
            "retry: 1000\n\n:\n\nid: 1\ndata: {\"text\":\"é: x\"}\n\n:\n\nevent: end\ndata: {}\n\nid: 2\ndata: cut o";
        let expected = [
            Event { id: "1".to_owned(), data: "{\"text\":\"é: x\"}".to_owned(), ..Event::default() },
            Event { name: "end".to_owned(), data: "{}".to_owned(), ..Event::default() },
        ];
        for size in 1..=text.len() {
            let mut events = Events::default();
            let found: Vec<Event> =
                text.as_bytes().chunks(size).flat_map(|chunk| events.push(chunk).unwrap()).collect();
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_stream_of_events_is_not_read_for_ever() {
        assert_eq!(Events::default().push(b"data: \xff\n"), Err(NotEvents));
        let mut events = Events::default();
        let endless = std::iter::repeat_with(|| events.push(&vec![b'x'; 1 << 20])).take(17).last();
        assert_eq!(endless, Some(Err(NotEvents)));
    }
}
