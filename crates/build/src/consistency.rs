//! Patches for the consistency engine: what they are built with, and which model suits them.
//!
//! A recommendation goes by the same signs as the rest of the advice (docs/building.md), and proves as little.

use crate::Request;
use kmend_engine::EngineError;
use kmend_link::{ForEngine, Linked};
use kmend_refusal::{Advice, Code, Refusal, Sign};
use serde::Serialize;
use std::collections::BTreeSet;

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

/// What the module must know of the engine; this builds it, once for each kernel.
pub(crate) fn for_engine(request: &Request<'_>, wanted: &EngineRequest) -> Result<ForEngine, EngineError> {
    let kept = kmend_engine::keep(request.cache, request.kernel)?;
    let (name, text) = kmend_engine::interface_header();
    Ok(ForEngine {
        interface: kmend_engine::interface_id(),
        header: (name.to_owned(), text.to_owned()),
        symvers: kept.symvers,
        model: wanted.model.clone(),
        redirect: wanted.redirect.clone(),
    })
}

/// The model that suits a patch, by what is known of it.
pub(crate) fn recommend(linked: &Linked, advice: &BTreeSet<Advice>) -> Recommendation {
    let named = |sign| {
        let subjects: Vec<&str> =
            advice.iter().filter(|it| it.sign == sign).map(|it| it.subject.as_str()).collect();
        (!subjects.is_empty()).then(|| subjects.join(", "))
    };
    let mut reasons = Vec::new();
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
        "stop-machine"
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
}
