//! Patches for the consistency engine: what they are built with, and which model suits them.
//!
//! A recommendation goes by the same signs as the rest of the advice (docs/building.md), and proves as little.

use crate::Request;
use crate::report::{Note, NoteKind};
use kmend_engine::EngineError;
use kmend_link::{ForEngine, JUMP, Linked};
use kmend_refusal::{Advice, Code, Refusal, Sign};
use serde::Serialize;
use std::collections::BTreeSet;

/// The model that is taken where only those do that stop the machine: of these it holds up least.
const STOP_MACHINE: &str = "stop-machine";

/// What a patch for the engine is to begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineRequest {
    /// The consistency model; the engine's default if `None`.
    pub model: Option<String>,
    /// How callers are redirected; the engine's default if `None`.
    pub redirect: Option<String>,
}

/// Which consistency model the patch wants, as far as can be seen: advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recommendation {
    /// The model.
    pub model: &'static str,
    /// Why.
    pub reasons: Vec<String>,
    /// What may keep a transition by this model from its end.
    pub cautions: Vec<String>,
}

/// Checks what is asked for: only of a model that this engine has can be told what it does.
pub(crate) fn check(request: &EngineRequest) -> Vec<Refusal> {
    let models = kmend_engine::models();
    let redirects = kmend_engine::redirects();
    let check = |what, asked: &Option<String>, known: &[&str]| {
        let name = asked.as_deref().filter(|name| !known.contains(name))?;
        let why = format!("the engine has no {what} of this name: it has {}", known.join(", "));
        Some(Refusal::new(Code::NoSuchModel, name, why))
    };
    let found = [check("model", &request.model, &models), check("redirect", &request.redirect, &redirects)];
    found.into_iter().flatten().collect()
}

/// What functions that ftrace does not know want: a jump, and a model that stops the machine. What is not asked for is chosen;
/// what is asked for and does not do is refused.
pub(crate) fn settle(wanted: &EngineRequest, untraced: &[String]) -> Result<EngineRequest, Vec<Refusal>> {
    if untraced.is_empty() {
        return Ok(wanted.clone());
    }
    let refuse = |what, asked: &Option<String>, fit: &[&str]| {
        let name = asked.as_deref().filter(|name| !fit.contains(name))?;
        let (functions, fit) = (untraced.join(", "), fit.join(" or "));
        let why = format!("ftrace does not know {functions}: only {what} {fit} can switch such functions");
        Some(Refusal::new(Code::NoStop, name, why))
    };
    let refusals = [
        refuse("model", &wanted.model, &kmend_engine::stopping_models()),
        refuse("redirect", &wanted.redirect, &[JUMP]),
    ];
    let refusals: Vec<Refusal> = refusals.into_iter().flatten().collect();
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let model = wanted.model.clone().unwrap_or_else(|| STOP_MACHINE.to_owned());
    Ok(EngineRequest { model: Some(model), redirect: Some(JUMP.to_owned()) })
}

/// What the module must know of the engine; this builds it, once for each kernel.
pub(crate) fn for_engine(
    request: &Request<'_>,
    wanted: EngineRequest,
    untraced: Vec<String>,
) -> Result<ForEngine, EngineError> {
    let kept = kmend_engine::keep(request.cache, request.kernel)?;
    let (name, text) = kmend_engine::interface_header();
    Ok(ForEngine {
        interface: kmend_engine::interface_id(),
        header: (name.to_owned(), text.to_owned()),
        symvers: kept.symvers,
        model: wanted.model,
        redirect: wanted.redirect,
        untraced,
        stopping: kmend_engine::stopping_models().into_iter().map(str::to_owned).collect(),
    })
}

/// What is to be known of a function that ftrace does not know.
pub(crate) fn note(function: &str) -> Note {
    let text = format!(
        "it has no ftrace entry: only a jump redirects it (redirect {JUMP}), and only with the machine stopped (model {})",
        kmend_engine::stopping_models().join(" or ")
    );
    Note { kind: NoteKind::Advice, subject: function.to_owned(), text }
}

/// The model that suits a patch, by what is known of it.
pub(crate) fn recommend(linked: &Linked, advice: &BTreeSet<Advice>) -> Recommendation {
    let named = |sign| {
        let subjects: Vec<&str> =
            advice.iter().filter(|it| it.sign == sign).map(|it| it.subject.as_str()).collect();
        (!subjects.is_empty()).then(|| subjects.join(", "))
    };
    let untraced = linked.engine.iter().flat_map(|engine| &engine.untraced);
    let mut reasons: Vec<String> = untraced.map(|name| format!("{name} has no ftrace entry")).collect();
    reasons.extend(named(Sign::Locks).map(|names| format!("{names}: locks are taken in another way")));
    reasons.extend(named(Sign::Data).map(|names| format!("{names}: shared data is used in another way")));
    let model = if reasons.is_empty() {
        for (caller, callee) in linked.meetings() {
            reasons.push(format!("{caller} leads to {callee}, and both change"));
        }
        if linked.waits_for_old_code() {
            reasons.push("something is to happen when nothing runs the old code any more".into());
        }
        if reasons.is_empty() { "immediate" } else { "hybrid" }
    } else {
        STOP_MACHINE
    };
    if reasons.is_empty() {
        reasons.push("no changed function leads to another, and no sign of changed locks or data".into());
    }
    let stays = named(Sign::Stay).filter(|_| model != "immediate");
    let cautions = stays.map(|names| format!("a task can stay in {names}, and the transition waits for it"));
    Recommendation { model, reasons, cautions: cautions.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_does_not_have_is_refused_at_once() {
        let asked = |model: &str, redirect: &str| {
            let request = EngineRequest { model: Some(model.into()), redirect: Some(redirect.into()) };
            check(&request).iter().map(|refusal| refusal.subject.clone()).collect::<Vec<_>>()
        };
        assert!(asked("hybrid", "ftrace").is_empty() && check(&EngineRequest::default()).is_empty());
        assert_eq!(asked("hybird", "teleport"), ["hybird", "teleport"]);
    }

    #[test]
    fn a_function_that_ftrace_does_not_know_is_switched_by_a_jump_in_a_stop() {
        let settle = |model: Option<&str>, redirect: Option<&str>, untraced: &[&str]| {
            let asked =
                EngineRequest { model: model.map(str::to_owned), redirect: redirect.map(str::to_owned) };
            let untraced: Vec<String> = untraced.iter().map(|&name| name.to_owned()).collect();
            settle(&asked, &untraced)
        };
        let both = |model: &str| {
            Ok(EngineRequest { model: Some(model.to_owned()), redirect: Some(JUMP.to_owned()) })
        };
        assert_eq!(settle(None, None, &[]), Ok(EngineRequest::default()));
        assert_eq!(settle(None, None, &["f"]), both("stop-machine"));
        assert_eq!(settle(Some("quiesce"), Some("jump"), &["f"]), both("quiesce"));
        let refusals = settle(Some("lazy"), Some("ftrace"), &["f", "g"]).unwrap_err();
        let subjects: Vec<_> =
            refusals.iter().map(|refusal| (refusal.code, refusal.subject.as_str())).collect();
        assert_eq!(subjects, [(Code::NoStop, "lazy"), (Code::NoStop, "ftrace")]);
        assert!(refusals[0].why.contains("f, g") && refusals[0].why.contains("quiesce or stop-machine"));
    }
}
