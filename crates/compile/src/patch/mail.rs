//! Patches that are mails, one or a box of them: what `git am` makes of these before it looks for diffs.
//!
//! Formats: RFC 5322 (headers), RFC 2045 and 2046 (transfer encodings, parts), RFC 2047 (words in headers), and the box of
//! RFC 4155, whose separators are told from text as git does it (builtin/mailsplit.c, `is_from_line`). What cannot be decoded
//! is an error: a byte that is guessed would be code.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;
use std::ops::Range;

/// How deep parts may lie in each other.
const DEEPEST: usize = 8;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A mail of a patch, or all of one that is none.
pub struct Mail {
    /// Its lines, from 0.
    pub lines: Range<usize>,
    /// Its subject; `None` where there is no such header.
    pub subject: Option<String>,
}

/// The mails of a decoded text.
pub fn mails(text: &[u8]) -> Vec<Mail> {
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let mail = |range: Range<usize>| Mail {
        subject: Headers::of(lines.get(range.clone()).unwrap_or_default()).value("subject"),
        lines: range,
    };
    ranges(&lines).into_iter().map(mail).collect()
}

/// Whether a mail of this subject holds no diff by its nature: a cover letter (`[PATCH 0/3]`), or an answer.
pub fn needs_no_diff(subject: &str) -> bool {
    let mut rest = subject.trim_start();
    if rest.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("re:")) {
        return true;
    }
    while let Some((tag, after)) = rest.strip_prefix('[').and_then(|tag| tag.split_once(']')) {
        let number = tag.split_whitespace().find_map(|word| word.split_once('/'));
        if number.is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte == b'0')) {
            return true;
        }
        rest = after.trim_start();
    }
    false
}

/// The subject of a patch that begins as a mail, decoded; `None` if it does not.
pub fn subject(patch: &[u8]) -> Option<String> {
    let lines: Vec<&[u8]> = patch.split_inclusive(|&byte| byte == b'\n').take(MOST_HEADERS).collect();
    Headers::of(&lines).value("subject").filter(|subject| !subject.is_empty())
}

/// A patch's text with the transfer encodings of its mails undone.
pub fn decoded(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let mails = ranges(&lines);
    let mail = |range: &Range<usize>| lines.get(range.clone()).unwrap_or_default();
    if mails.iter().all(|range| Headers::of(mail(range)).is_plain()) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut text = Vec::with_capacity(bytes.len());
    for range in &mails {
        part(mail(range), &mut text, 0)?;
    }
    Ok(Cow::Owned(text))
}

/// The lines of each mail of a box; one range if it is none.
fn ranges(lines: &[&[u8]]) -> Vec<Range<usize>> {
    let starts = lines.iter().enumerate().filter(|(_, line)| is_separator(line));
    let mut starts: Vec<usize> = starts.map(|(at, _)| at).filter(|&at| at > 0).collect();
    starts.insert(0, 0);
    let ends = starts.iter().copied().skip(1).chain([lines.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// `From WHO DAY MONTH NUMBER HH:MM:SS YEAR`.
fn is_separator(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"From ") else { return false };
    let text = String::from_utf8_lossy(rest);
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_time = |word: &&str| {
        let parts: Vec<&str> = word.split(':').collect();
        parts.len() >= 2
            && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_year = |word: &str| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    let at = words.iter().position(is_time);
    at.is_some_and(|at| words.get(at + 1..).unwrap_or_default().iter().any(|word| is_year(word)))
}

/// A mail's, or a part's, headers, each on one line.
struct Headers {
    fields: Vec<(String, String)>,
    /// How many lines they take, with the empty one.
    lines: usize,
}

/// More header lines than any mail has.
const MOST_HEADERS: usize = 4096;

impl Headers {
    /// The headers at the start of `lines`; none where something else stands there.
    fn of(lines: &[&[u8]]) -> Headers {
        let mut fields: Vec<(String, String)> = Vec::new();
        let mut count = 0;
        for line in lines.iter().take(MOST_HEADERS) {
            let text = String::from_utf8_lossy(line);
            let text = text.trim_end_matches(['\n', '\r']);
            count += 1;
            if text.is_empty() {
                return Headers { fields, lines: count };
            }
            if count == 1 && text.starts_with("From ") {
                continue;
            }
            if text.starts_with([' ', '\t']) {
                let Some((_, value)) = fields.last_mut() else { break };
                value.push(' ');
                value.push_str(text.trim());
                continue;
            }
            let field = text.split_once(':');
            let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            let Some((name, value)) = field.filter(|(name, _)| is_name(name)) else { break };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Headers { fields: Vec::new(), lines: 0 }
    }

    fn get(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str())
    }

    /// A field's text, its encoded words decoded.
    fn value(&self, name: &str) -> Option<String> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        Some(decoded_words(value))
    }

    /// Whether nothing of the body is encoded.
    fn is_plain(&self) -> bool {
        matches!(self.encoding().as_str(), "" | "7bit" | "8bit" | "binary")
            && !self.kind().starts_with("multipart/")
    }

    fn encoding(&self) -> String {
        self.get("content-transfer-encoding").trim().to_ascii_lowercase()
    }

    fn kind(&self) -> String {
        self.get("content-type").trim().to_ascii_lowercase()
    }

    /// The file name of a part; empty if it has none.
    fn name(&self) -> String {
        let of = |field: &str, key: &str| {
            let value = self.get(field);
            let at = value.to_ascii_lowercase().find(key)? + key.len();
            let name = value.get(at..)?.trim_start_matches('"').split(['"', ';']).next()?;
            Some(decoded_words(name.trim()))
        };
        of("content-disposition", "filename=").or_else(|| of("content-type", "name=")).unwrap_or_default()
    }

    /// What separates the parts.
    fn boundary(&self) -> Option<&str> {
        let value = self.get("content-type");
        let at = value.to_ascii_lowercase().find("boundary=")? + "boundary=".len();
        let rest = value.get(at..)?;
        let boundary = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split([';', ' ', '\t']).next(),
        };
        boundary.filter(|boundary| !boundary.is_empty())
    }
}

/// Writes a mail or part with what its body says.
fn part(lines: &[&[u8]], text: &mut Vec<u8>, depth: usize) -> Result<(), String> {
    let headers = Headers::of(lines);
    let (head, body) = lines.split_at(headers.lines.min(lines.len()));
    for line in head {
        text.extend_from_slice(line);
    }
    let kind = headers.kind();
    if kind.starts_with("text/html") {
        return Ok(());
    }
    if kind.starts_with("multipart/") {
        let boundary =
            headers.boundary().ok_or("a mail of several parts does not say what separates them")?;
        return parts(body, boundary, text, depth);
    }
    match headers.encoding().as_str() {
        "base64" => {
            let packed: Vec<u8> = body
                .iter()
                .flat_map(|line| line.iter().copied())
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            let plain = BASE64.decode(packed).map_err(|error| format!("its base64 is damaged: {error}"))?;
            match contents(&plain, &headers.name()) {
                Contents::Text => text.extend_from_slice(&plain),
                Contents::Other => return Ok(()),
                Contents::Packed(why) => return Err(why),
            }
        }
        "quoted-printable" => {
            for line in body {
                unquote(line, text)?;
            }
        }
        "" | "7bit" | "8bit" | "binary" => text.extend(body.concat()),
        other => return Err(format!("its transfer encoding is `{other}`, which is not known")),
    }
    if text.last().is_some_and(|&byte| byte != b'\n') {
        text.push(b'\n');
    }
    Ok(())
}

/// Beginnings of files that are packed, or that hold others: gzip, xz, zstd, bzip2, zip, 7z, rar; and text of two bytes a character.
const PACKED: [&[u8]; 9] = [
    &[0x1f, 0x8b],
    &[0xfd, b'7', b'z', b'X', b'Z', 0],
    &[0x28, 0xb5, 0x2f, 0xfd],
    b"BZh",
    b"PK\x03\x04",
    &[b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c],
    b"Rar!",
    &[0xff, 0xfe],
    &[0xfe, 0xff],
];

/// What a part holds.
enum Contents {
    Text,
    /// No diff by its nature, as a picture or a signature.
    Other,
    /// Perhaps a diff, and in a form that is not read here; with what is to be said of that.
    Packed(String),
}

fn contents(plain: &[u8], name: &str) -> Contents {
    let is_binary = plain.contains(&0);
    let of_patch = [".patch", ".diff", ".mbox", ".eml"].iter().any(|end| name.contains(end));
    let is_packed = PACKED.iter().any(|start| plain.starts_with(start));
    if is_packed || (is_binary && of_patch) {
        let name = if name.is_empty() { "without a name" } else { name };
        let way = "give the patch in it as a file of its own";
        return Contents::Packed(format!("its part {name} is packed or binary: {way}"));
    }
    if is_binary { Contents::Other } else { Contents::Text }
}

/// Writes each part of a body.
fn parts(body: &[&[u8]], boundary: &str, text: &mut Vec<u8>, depth: usize) -> Result<(), String> {
    if depth >= DEEPEST {
        return Err("its parts lie too deep in each other".to_owned());
    }
    let mark = format!("--{boundary}");
    let is_mark = |line: &&[u8]| -> bool {
        let rest = line.strip_prefix(mark.as_bytes()).map(<[u8]>::trim_ascii);
        rest.is_some_and(|rest| rest.is_empty() || rest == b"--")
    };
    // What is before the first mark, and behind the last, is no part (RFC 2046, 5.1.1).
    let count = body.iter().filter(|line| is_mark(line)).count();
    let pieces: Vec<&[&[u8]]> = body.split(|line| is_mark(line)).collect();
    for lines in pieces.get(1..count.max(1)).unwrap_or_default() {
        part(lines, text, depth + 1)?;
    }
    if count < 2 {
        return Err("a mail of several parts ends before its parts do".to_owned());
    }
    Ok(())
}

/// Writes a line of quoted-printable text (RFC 2045, 6.7).
fn unquote(line: &[u8], text: &mut Vec<u8>) -> Result<(), String> {
    let (line, end): (&[u8], &[u8]) = match line.strip_suffix(b"\n") {
        Some(line) => (line.strip_suffix(b"\r").unwrap_or(line), b"\n"),
        None => (line, b""),
    };
    // White space at a line's end was added on the way.
    let mut rest = line.trim_ascii_end();
    let is_soft = rest.ends_with(b"=");
    rest = rest.strip_suffix(b"=").unwrap_or(rest);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'=' {
            text.push(byte);
            continue;
        }
        let code = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) else {
            return Err(format!("its quoted-printable text is damaged: `{}`", String::from_utf8_lossy(line)));
        };
        text.push(byte);
        rest = rest.get(2..).unwrap_or_default();
    }
    if !is_soft {
        text.extend_from_slice(end);
    }
    Ok(())
}

/// A header's text without `=?CHARSET?ENCODING?TEXT?=` (RFC 2047); what is no UTF-8 has U+FFFD in its place.
fn decoded_words(value: &str) -> String {
    let mut text: Vec<u8> = Vec::new();
    let mut rest = value;
    while let Some(at) = rest.find("=?") {
        let (before, from) = rest.split_at(at);
        let Some((word, after)) = encoded_word(from) else {
            text.extend_from_slice(before.as_bytes());
            text.extend_from_slice(b"=?");
            rest = from.get(2..).unwrap_or_default();
            continue;
        };
        // White space between two encoded words is no part of the text.
        if !before.trim().is_empty() || text.is_empty() {
            text.extend_from_slice(before.as_bytes());
        }
        text.extend(word);
        rest = after;
    }
    text.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&text).into_owned()
}

/// The word at the start of `text`, and what follows it.
fn encoded_word(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut fields = text.get(2..)?.splitn(3, '?');
    let (_charset, encoding, rest) = (fields.next()?, fields.next()?, fields.next()?);
    let (coded, after) = rest.split_once("?=")?;
    let mut word = Vec::new();
    match encoding {
        "b" | "B" => word = BASE64.decode(coded).ok()?,
        "q" | "Q" => unquote(coded.replace('_', " ").as_bytes(), &mut word).ok()?,
        _ => return None,
    }
    Some((word, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(mail: &str) -> String {
        String::from_utf8(decoded(mail.as_bytes()).unwrap().into_owned()).unwrap()
    }

    const DIFF: &str = "--- a/f/x.c\n+++ b/f/x.c\n@@ -1 +1 @@\n-a = b\n+\t\u{fc}\n";

    #[test]
    fn a_text_that_is_no_mail_stays_as_it_is() {
        for plain in [DIFF, "Subject: x\n\nbody\n", "", "\n", "Fix: a\nand b\n\n=20\n"] {
            assert!(matches!(decoded(plain.as_bytes()), Ok(Cow::Borrowed(_))), "{plain}");
        }
    }

    #[test]
    fn base64_and_quoted_printable_are_decoded() {
        let packed = base64::engine::general_purpose::STANDARD.encode(DIFF);
        let (one, two) = packed.split_at(20);
        let mail = format!("Subject: x\nContent-Transfer-Encoding: base64\n\n{one}\n{two}\n");
        assert!(text(&mail).ends_with(DIFF));
        let quoted = DIFF.replace("a = b", "a =3D=\n b  ").replace('\u{fc}', "=C3=bc");
        let mail = format!("Subject: x\nContent-Transfer-Encoding: Quoted-Printable\n\n{quoted}");
        assert!(text(&mail).ends_with(DIFF), "{}", text(&mail));
        for (encoding, body) in [("base64", "@@@"), ("quoted-printable", "a=ZZ"), ("x-uuencode", "a")] {
            let mail = format!("Subject: x\nContent-Transfer-Encoding: {encoding}\n\n{body}\n");
            assert!(decoded(mail.as_bytes()).is_err(), "{encoding}");
        }
    }

    #[test]
    fn a_box_and_parts_are_taken_apart() {
        let from = "From 0123 Mon Sep 17 00:00:00 2001\n";
        let packed = base64::engine::general_purpose::STANDARD.encode(DIFF);
        let parts = format!(
            "{from}Subject: one\nContent-Type: multipart/mixed;\n boundary=\"--x\"\n\nnone\n----x\nContent-Type: text/plain\n\nwords\n\
             ----x\nContent-Type: text/html\n\n<p>\n----x\nContent-Transfer-Encoding: base64\n\n{packed}\n----x--\nend\n"
        );
        let both = format!("{parts}\n{from}Subject: two\n\n{DIFF}");
        let decoded = text(&both);
        assert_eq!(decoded.matches(DIFF).count(), 2, "{decoded}");
        assert!(!decoded.contains("<p>") && decoded.contains("words"));
        let subjects: Vec<_> =
            mails(decoded.as_bytes()).into_iter().map(|mail| mail.subject.unwrap()).collect();
        assert_eq!(subjects, ["one", "two"]);
        let cut = parts.replace("----x", "-x");
        assert!(super::decoded(cut.as_bytes()).is_err());
    }

    #[test]
    fn a_part_that_is_packed_is_an_error_and_a_picture_is_not() {
        let mail = |name: &str, bytes: &[u8]| {
            let body = base64::engine::general_purpose::STANDARD.encode(bytes);
            format!(
                "Subject: one\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\n{DIFF}\n--x\nContent-Type: application/x; name=\"{name}\"\n\
                 Content-Transfer-Encoding: base64\n\n{body}\n--x--\n"
            )
        };
        for (name, bytes) in
            [("2.patch.gz", &[0x1f, 0x8b, 8, 0][..]), ("a.zip", b"PK\x03\x04\x00"), ("x.patch", b"a\0b")]
        {
            let why = decoded(mail(name, bytes).as_bytes()).unwrap_err();
            assert!(why.contains(name), "{why}");
        }
        let picture = text(&mail("x.png", b"\x89PNG\0\0"));
        assert!(picture.contains(DIFF) && !picture.contains("PNG"), "{picture}");
    }

    #[test]
    fn letters_are_told_by_their_subjects() {
        for subject in ["[PATCH 0/2] x", "[PATCH v3 00/12] x", "[RFC][PATCH 6.1 0/1] x", "Re: [PATCH 1/2] x"]
        {
            assert!(needs_no_diff(subject), "{subject}");
        }
        for subject in ["[PATCH 1/2] x", "[PATCH] 0/2", "x", "[PATCH 10/20] y", "[/]"] {
            assert!(!needs_no_diff(subject), "{subject}");
        }
    }

    #[test]
    fn subjects_are_decoded() {
        let mail = "From: a\nSubject: =?UTF-8?q?one=20=C3=BC?=\n =?utf-8?B?IHR3bw==?= three\n\n";
        assert_eq!(subject(mail.as_bytes()).as_deref(), Some("one \u{fc} two three"));
        assert_eq!(subject(b"words\nSubject: x\n\n"), None);
        assert_eq!(subject(b"Subject: x"), None);
    }

    #[test]
    fn a_word_that_looks_like_a_separator_is_none() {
        assert!(is_separator(b"From 0123 Mon Sep 17 00:00:00 2001\n"));
        for text in ["From here on the lock is held\n", "From: a\n", "From a 1:2 2001\n"] {
            assert!(!is_separator(text.as_bytes()), "{text}");
        }
    }
}
