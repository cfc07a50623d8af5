//! The faults.

use super::Scene;
use super::errors::Kind;
use super::faults::{answer, body, connection, errors, frame, head};
use super::table::Outcome::{Broken, Filtered, Finished, Paused, Refused};
use super::table::Phase::{
    AfterEnd, BeforeContent, BeforeFinish, Connect, Head, MidContent, Sending, Tail, Tls,
};
use super::table::{Ask, Outcome, Phase, Row, Text, When, Wires};
use super::upstream::Act;

const UNREACHABLE: &str = "cloud_unreachable";
const TIMEOUT: &str = "cloud_timeout";
const GARBAGE: &str = "cloud_garbage";
const FAILED: &str = "cloud_failed";
const THROTTLED: &str = "cloud_throttled";

/// Faults of the whole answer: one cell, under its head.
const FINE: When = at(&[(Head, Finished)]);
const CUT: When = at(&[(Head, Refused(UNREACHABLE))]);
const SPOILED: When = at(&[(Head, Refused(GARBAGE))]);
const LATE: When = at(&[(Head, Refused(TIMEOUT))]);

/// Whatever is behind it, the connection ends in one of these phases.
const ENDS: &[(Phase, Outcome)] = &[
    (Tls, Refused(UNREACHABLE)),
    (Sending, Refused(UNREACHABLE)),
    (Head, Refused(UNREACHABLE)),
    (BeforeContent, Refused(UNREACHABLE)),
    (MidContent, Broken(UNREACHABLE)),
    (BeforeFinish, Broken(UNREACHABLE)),
    (Tail, Finished),
    (AfterEnd, Finished),
];

const fn at(cells: &'static [(Phase, Outcome)]) -> When {
    When::Only(cells)
}

const fn row(
    name: &'static str,
    wires: Wires,
    when: When,
    acts: fn(&Scene<'_>) -> Vec<Act>,
) -> Row {
    Row { name, wires, when, acts, ask: Ask::Plain, text: Text::Honest, times: 1 }
}

const fn all(name: &'static str, when: When, acts: fn(&Scene<'_>) -> Vec<Act>) -> Row {
    row(name, Wires::All, when, acts)
}

const fn asking(row: Row, ask: Ask) -> Row {
    Row { ask, ..row }
}

const fn saying(row: Row, text: Text) -> Row {
    Row { text, ..row }
}

const fn told(name: &'static str, kind: Kind, when: When, acts: fn(&Scene<'_>) -> Vec<Act>) -> Row {
    row(name, Wires::Telling(kind), when, acts)
}

/// An answer that is no answer, and how long its cloud is left alone.
macro_rules! paused {
    ($name:literal, $reason:expr, $after:expr, $status:literal, $lines:literal) => {
        all($name, at(&[(Head, Paused($reason, $after))]), |scene| {
            errors::bare(scene, $status, $lines)
        })
    };
}

/// A refusal in the provider's own words.
macro_rules! refusal {
    ($name:literal, $kind:ident, $reason:literal) => {
        told($name, Kind::$kind, at(&[(Head, Refused($reason))]), |scene| {
            errors::told(scene, Kind::$kind, "")
        })
    };
}

pub(crate) static ROWS: &[Row] = &[
    // The connection.
    all("nobody listens", at(&[(Connect, Refused(UNREACHABLE))]), |_| vec![Act::Close]),
    all("the connection never opens", at(&[(Connect, Refused(UNREACHABLE))]), |_| vec![Act::Hang]),
    asking(all("FIN", at(ENDS), connection::fin), Ask::Much),
    asking(all("reset", at(ENDS), connection::reset), Ask::Much),
    asking(all("silence", When::Exchange(TIMEOUT), connection::silence), Ask::Much),
    all("silence in the handshake", at(&[(Tls, Refused(UNREACHABLE))]), connection::silence),
    asking(
        all(
            "silence until the deadline",
            at(&[
                (Head, Refused("deadline")),
                (BeforeContent, Refused("deadline")),
                (MidContent, Broken("deadline")),
                (BeforeFinish, Broken("deadline")),
            ]),
            connection::silence,
        ),
        Ask::Deadline,
    ),
    all("garbage in the handshake", at(&[(Tls, Refused(UNREACHABLE))]), head::garbage),
    all("an alert in the handshake", at(&[(Tls, Refused(UNREACHABLE))]), connection::alert),
    all("HTTP in the handshake", at(&[(Tls, Refused(UNREACHABLE))]), head::bad_request),
    all("one byte at a time", When::Answer(TIMEOUT), connection::drip),
    asking(
        all("the request is read bit by bit", at(&[(Sending, Refused(TIMEOUT))]), |scene| {
            scene.honest()
        }),
        Ask::Slowly,
    ),
    asking(
        all("refused before it is read", at(&[(Sending, Refused("cloud_refused"))]), |scene| {
            errors::bare(scene, "413 Content Too Large", "")
        }),
        Ask::Much,
    ),
    // The head.
    all("a slow head", FINE, head::slow),
    all("a head of 128 KiB", CUT, head::huge),
    all("too many headers", CUT, head::many),
    all("an endless head", CUT, head::endless),
    all("garbage instead of HTTP", CUT, head::garbage),
    all("HTTP/2 to HTTP/1", CUT, head::http2),
    all("a NUL in a header", CUT, head::nul),
    all("two lengths", CUT, head::two_lengths),
    all("an endless flood of 1xx", LATE, head::flood_of_1xx),
    all("some 1xx, then an answer", FINE, head::some_1xx),
    all("an answer in HTTP/1.0", FINE, head::http10),
    all("a redirect to a metadata service", SPOILED, |scene| {
        errors::bare(scene, "302 Found", "location: http://169.254.169.254/latest/\r\n")
    }),
    all("201", SPOILED, |scene| errors::bare(scene, "201 Created", "")),
    all("204", SPOILED, |scene| errors::bare(scene, "204 No Content", "")),
    all("101", SPOILED, |scene| {
        errors::bare(scene, "101 Switching Protocols", "connection: upgrade\r\nupgrade: x\r\n")
    }),
    all("HTML with 200", SPOILED, |scene| answer::of_type(scene, "text/html")),
    all("another content type", SPOILED, |scene| {
        answer::of_type(scene, "application/octet-stream")
    }),
    all("a compressed answer", SPOILED, answer::compressed),
    // Errors.
    refusal!("throttled", Throttled, "cloud_throttled"),
    refusal!("out of quota", Quota, "cloud_quota"),
    refusal!("credentials refused, then good", Credentials, "cloud_credentials"),
    refusal!("the request refused", Request, "cloud_refused"),
    refusal!("the prompt refused", Filtered, "cloud_filtered"),
    refusal!("no such model", NotFound, "cloud_not_found"),
    refusal!("an internal error", Failed, "cloud_failed"),
    told("our clock is wrong, then good", Kind::Clock, FINE, errors::clock),
    Row {
        times: 2,
        ..told(
            "our clock is wrong, twice",
            Kind::Clock,
            at(&[(Head, Refused("cloud_clock"))]),
            errors::clock,
        )
    },
    told(
        "our clock is wrong, and no date",
        Kind::Clock,
        at(&[(Head, Refused("cloud_clock"))]),
        |scene| errors::told(scene, Kind::Clock, ""),
    ),
    paused!("429", THROTTLED, None, "429 Too Many Requests", ""),
    paused!("429, retry-after in seconds", THROTTLED, Some(2000), "429 No", "retry-after: 2\r\n"),
    paused!("429, retry-after-ms", THROTTLED, Some(250), "429 No", "retry-after-ms: 250\r\n"),
    paused!(
        "429, both spellings",
        THROTTLED,
        Some(250),
        "429 No",
        "retry-after: 9\r\nretry-after-ms: 250\r\n"
    ),
    all("429, retry-after a date", at(&[(Head, Paused(THROTTLED, Some(30_000)))]), |scene| {
        errors::retry_at(scene, 30)
    }),
    all("429, retry-after a date gone by", at(&[(Head, Paused(THROTTLED, Some(0)))]), |scene| {
        errors::retry_at(scene, -30)
    }),
    paused!("429, retry-after a day", THROTTLED, Some(60_000), "429 No", "retry-after: 86400\r\n"),
    paused!("429, retry-after negative", THROTTLED, None, "429 No", "retry-after: -1\r\n"),
    paused!("429, retry-after in words", THROTTLED, None, "429 No", "retry-after: soon\r\n"),
    paused!(
        "429, retry-after beyond u64",
        THROTTLED,
        None,
        "429 No",
        "retry-after: 99999999999999999999999\r\n"
    ),
    paused!("503", FAILED, None, "503 Service Unavailable", ""),
    paused!("503 with retry-after", THROTTLED, Some(2000), "503 No", "retry-after: 2\r\n"),
    paused!("529", THROTTLED, None, "529 Overloaded", ""),
    all("an error whose body hangs", at(&[(Head, Refused(FAILED))]), errors::hanging),
    all("an error without end", at(&[(Head, Refused(FAILED))]), errors::endless),
    all("an error nested deeply", at(&[(Head, Refused(FAILED))]), errors::nested),
    row("200 with an error", Wires::Whole, at(&[(Head, Refused(FAILED))]), errors::with_200),
    row("a whole answer to a stream", Wires::Whole, FINE, answer::whole),
    // The body as HTTP carries it.
    all("a length too long", When::Body(UNREACHABLE), body::too_long),
    all("a length too short", When::Body(UNREACHABLE), body::too_short),
    all("no size of a chunk", When::Body(UNREACHABLE), body::no_size),
    all("a size beyond u64", When::Body(UNREACHABLE), body::huge_size),
    all("no end of a chunk", When::Body(UNREACHABLE), body::no_end),
    all("FIN within a chunk", When::Body(UNREACHABLE), body::cut_chunk),
    all("the body ends too early", When::Body(UNREACHABLE), body::ends),
    all("trailers", FINE, body::trailers),
    all("byte by byte", FINE, body::bytewise),
    all("a pause between all parts", FINE, body::pauses),
    // The body as a stream.
    all("invalid UTF-8", When::Body(GARBAGE), |scene| body::raw(scene, b"{\"\xff\xfe\"}")),
    all("invalid JSON", When::Body(GARBAGE), |scene| body::raw(scene, b"{\"choices\": [")),
    all("JSON that is no object", When::Body(GARBAGE), |scene| body::raw(scene, b"7")),
    all("a number for a text", When::Body(GARBAGE), body::wrong_type),
    all("a control character in JSON", When::Body(GARBAGE), body::control),
    all("half a surrogate pair", When::Body(GARBAGE), body::surrogate),
    all("JSON nested deeply", When::Body(GARBAGE), body::nested),
    row("a choice nobody asked for", Wires::Indexed, When::Body(GARBAGE), body::stranger),
    row("a choice beyond u32", Wires::Indexed, When::Body(GARBAGE), body::far_stranger),
    row(
        "given up",
        Wires::GivingUp,
        at(&[
            (BeforeContent, Refused(GARBAGE)),
            (MidContent, Broken(GARBAGE)),
            (BeforeFinish, Broken(GARBAGE)),
        ]),
        body::given_up,
    ),
    row("cut by a filter", Wires::Filtering, at(&[(BeforeFinish, Filtered)]), body::filtered),
    row("an error in the place of text", Wires::Erring, When::Body(FAILED), body::error),
    row("an event called error", Wires::Events, When::Body(GARBAGE), body::error_event),
    row("a line of 300 KiB", Wires::Text, When::Body(GARBAGE), body::huge_line),
    row("an event of 1.2 MiB", Wires::Text, When::Body(GARBAGE), body::huge_event),
    row("a byte order mark", Wires::Text, FINE, |scene| body::lines(scene, "\u{feff}", "\n")),
    row("CR ends lines", Wires::Text, FINE, |scene| body::lines(scene, "", "\r")),
    row("CRLF ends lines", Wires::Text, FINE, |scene| body::lines(scene, "", "\r\n")),
    row("fields nobody knows", Wires::Text, FINE, |scene| {
        body::lines(scene, "id: 7\nretry: 1\nunheard: of\n\n", "\n")
    }),
    row("a NUL between events", Wires::Text, FINE, |scene| body::lines(scene, "\0\n\n", "\n")),
    row("endless comments", Wires::Text, When::Body(TIMEOUT), body::comments),
    row("a flood of comments", Wires::Text, When::Body(GARBAGE), body::flood),
    all("endless empty texts", When::Body(TIMEOUT), body::empty_texts),
    all("a flood of empty texts", When::Body(GARBAGE), body::flood_of_nothing),
    saying(
        all("text without end", at(&[(MidContent, Broken(GARBAGE))]), body::flood_of_text),
        Text::Again("more "),
    ),
    saying(
        all("a NUL in the text", FINE, |scene| body::texts(scene, &["a\0b", "\u{1}\u{7f}"])),
        Text::This("a\0b\u{1}\u{7f}"),
    ),
    asking(
        saying(
            all("a stop string over three texts", FINE, |scene| {
                body::texts(scene, &["keep S", "T", "OP", " not this", " nor this"])
            }),
            Text::This("keep "),
        ),
        Ask::Stop,
    ),
    asking(
        saying(
            all("half a stop string, and then its end", FINE, |scene| {
                body::texts(scene, &["keep S", "T"])
            }),
            Text::This("keep ST"),
        ),
        Ask::Stop,
    ),
    asking(row("choices in turn", Wires::Choices, FINE, body::interleaved), Ask::Two),
    asking(
        row(
            "one choice never ends",
            Wires::Choices,
            at(&[(BeforeFinish, Broken(TIMEOUT))]),
            body::one_hangs,
        ),
        Ask::Two,
    ),
    all("the end twice", FINE, body::finished_twice),
    all("text after the end", FINE, body::text_after_finish),
    row(
        "[DONE] and no end",
        Wires::Done,
        at(&[
            (BeforeContent, Refused(GARBAGE)),
            (MidContent, Broken(GARBAGE)),
            (BeforeFinish, Broken(GARBAGE)),
        ]),
        body::done,
    ),
    row("[DONE] twice", Wires::Done, FINE, body::done_twice),
    row("no count", Wires::Counting, at(&[(Tail, Finished)]), body::no_count),
    row("a count of u64::MAX", Wires::Counting, at(&[(Tail, Finished)]), |scene| {
        body::count(scene, &u64::MAX.into())
    }),
    row("a negative count", Wires::Counting, at(&[(Tail, Finished)]), |scene| {
        body::count(scene, &(-1).into())
    }),
    row("a count that is a text", Wires::Counting, at(&[(Tail, Finished)]), |scene| {
        body::count(scene, &"many".into())
    }),
    // AWS's frames.
    row("a frame damaged", Wires::Frames, When::Body(GARBAGE), frame::of_frame),
    row("a prelude damaged", Wires::Frames, When::Body(GARBAGE), frame::of_prelude),
    row("FIN within a prelude", Wires::Frames, When::Body(UNREACHABLE), frame::cut_prelude),
    row("a frame of 2 MiB", Wires::Frames, When::Body(GARBAGE), |scene| {
        frame::prelude(scene, 2 << 20, 0)
    }),
    row("a frame shorter than its headers", Wires::Frames, When::Body(GARBAGE), |scene| {
        frame::prelude(scene, 16, 8)
    }),
    row("headers of 32 KiB", Wires::Frames, When::Body(GARBAGE), |scene| {
        frame::prelude(scene, 64 << 10, 32 << 10)
    }),
    row("a frame that does not say what it is", Wires::Frames, When::Body(GARBAGE), |scene| {
        frame::with(scene, &[(":content-type", "application/json")])
    }),
    row("an exception", Wires::Frames, When::Body(FAILED), |scene| {
        frame::with(
            scene,
            &[(":message-type", "exception"), (":exception-type", "internalServerException")],
        )
    }),
    row("an exception that throttles", Wires::Frames, When::Body(THROTTLED), |scene| {
        frame::with(
            scene,
            &[(":message-type", "exception"), (":exception-type", "throttlingException")],
        )
    }),
    row("an error frame", Wires::Frames, When::Body(FAILED), |scene| {
        frame::with(scene, &[(":message-type", "error"), (":error-code", "InternalFailure")])
    }),
    row("endless events nobody knows", Wires::Converse, When::Body(TIMEOUT), frame::unknown_events),
];
