//! The signature of a browser form: over its policy, which is sent in base64.
//!
//! Invariants: signatures are compared in constant time.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-authentication-HTTPPOST.html>

use subtle::ConstantTimeEq;

use crate::key::{Scope, SecretKey, SigningKey};

/// The signature of a policy as the form carries it, in hex. `day` is the credential's, such as `20150830`.
pub fn sign_policy(secret: &SecretKey, day: &str, scope: &Scope, policy: &str) -> String {
    hex::encode(SigningKey::derive(secret, day, scope).sign(policy))
}

/// Whether a form's signature is that of its policy.
pub fn verify_policy(secret: &SecretKey, day: &str, scope: &Scope, policy: &str, signature: &str) -> bool {
    sign_policy(secret, day, scope, policy).as_bytes().ct_eq(signature.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_verified_with_all_that_went_into_it() {
        let (secret, scope) =
            (SecretKey::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), Scope::new("us-east-1", "s3"));
        let signature = sign_policy(&secret, "20151229", &scope, "eyJleHBpcmF0aW9uIjoieCJ9");
        let verify =
            |secret: &SecretKey, day, scope: &Scope, policy| verify_policy(secret, day, scope, policy, &signature);
        assert!(verify(&secret, "20151229", &scope, "eyJleHBpcmF0aW9uIjoieCJ9"));
        assert!(!verify(&SecretKey::new("x"), "20151229", &scope, "eyJleHBpcmF0aW9uIjoieCJ9"));
        assert!(!verify(&secret, "20151230", &scope, "eyJleHBpcmF0aW9uIjoieCJ9"));
        assert!(!verify(&secret, "20151229", &Scope::new("us-east-2", "s3"), "eyJleHBpcmF0aW9uIjoieCJ9"));
        assert!(!verify(&secret, "20151229", &scope, "eyJleHBpcmF0aW9uIjoieSJ9"));
        assert!(!verify_policy(&secret, "20151229", &scope, "eyJleHBpcmF0aW9uIjoieCJ9", ""));
        assert_eq!(signature, "737257c9081eba6171f82448622357c98b697de15bc79a41aaa2b2688a52c298");
    }
}
