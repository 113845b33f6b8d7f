//! What a patch says that it is about.

/// The longest subject that is kept, in characters: sysfs shows all of a module's in one page.
const LONGEST: usize = 200;

/// The subject of a patch that is a mail, as `git format-patch` writes it, without `[PATCH ...]`; `None` if it is none.
pub(crate) fn subject(patch: &[u8]) -> Option<String> {
    let joined = kmend_compile::subject(patch)?;
    let joined = joined.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = joined.as_str();
    while let Some((_, after)) = rest.strip_prefix('[').and_then(|tag| tag.split_once(']')) {
        rest = after.trim_start();
    }
    let kept: String = rest.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    Some(kept).filter(|subject| !subject.is_empty())
}

#[cfg(test)]
mod tests {
    use super::subject;

    #[test]
    fn the_subject_of_a_mail_is_found() {
        let mail = b"From 12 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH 6.1 1/2] net: do not\n forget the lock\n\nSubject: x\n";
        assert_eq!(subject(mail).as_deref(), Some("net: do not forget the lock"));
        assert_eq!(subject(b"A word\n\nSubject: x\n--- a/x\n"), None);
        assert_eq!(subject(b"Subject: [PATCH\n\n"), Some("[PATCH".into()));
        assert_eq!(subject(b""), None);
    }
}
