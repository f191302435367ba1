//! STS: who a caller is.

use super::answer::element;
use super::call::Call;

impl Call<'_> {
    /// Needs no permission (STS).
    pub fn caller_identity(&self) -> String {
        let identity = &self.principal.identity;
        [element("Arn", &identity.arn()), element("UserId", &identity.id), element("Account", &identity.account)]
            .concat()
    }
}
