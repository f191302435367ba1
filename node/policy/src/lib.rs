//! Who may do what: IAM-style policies, access control lists, ownership controls and public access blocks. Pure: the
//! gateway says who asks, for what, and what it knows of the request; the answer is yes or no.
//!
//! It reads no request, looks up nobody and knows no operation by name: actions, ARNs and condition keys come from the
//! gateway.
//!
//! Invariants: an explicit deny wins over every allow; what can't be understood never allows; `decide` depends on
//! nothing but its arguments.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

mod access_block;
mod acl;
mod caller;
mod condition;
mod decide;
mod document;
mod pattern;
mod public;
mod values;

pub use access_block::{Ownership, PublicAccessBlock};
pub use acl::{Acl, AclError, CannedAcl, Grant, Grantee, Permission};
pub use caller::{Caller, Context, UserCaller};
pub use decide::{Need, Question, Target, decide, decide_assume, decide_own};
pub use document::{DocumentKind, Effect, Policy, PolicyError};
