//! Texts with `*`, `?` and policy variables such as `${aws:username}`.
//!
//! Invariants: a match costs at most the product of both lengths; a variable that has no value makes a pattern that
//! matches nothing; what a variable stands for is taken literally, so that no caller can bring a wildcard in.

use crate::caller::Context;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Many,
}

/// A pattern, ready to be matched.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Vec<Token>);

impl Pattern {
    /// `None` when a variable has no value. `context` is `None` where variables mean nothing.
    pub fn new(text: &str, context: Option<&Context>) -> Option<Self> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if let (Some(context), Some(body)) = (context, rest.strip_prefix("${"))
                && let Some((name, behind)) = body.split_once('}')
            {
                tokens.extend(variable(name, context)?.chars().map(Token::Literal));
                rest = behind;
                continue;
            }
            tokens.push(match next {
                '*' => Token::Many,
                '?' => Token::One,
                other => Token::Literal(other),
            });
            rest = &rest[next.len_utf8()..];
        }
        Some(Self(tokens))
    }

    pub fn matches(&self, text: &str) -> bool {
        let (tokens, text): (&[Token], Vec<char>) = (&self.0, text.chars().collect());
        let (mut at, mut token) = (0, 0);
        // Where to go on when the last `*` has to take one more character.
        let mut resume: Option<(usize, usize)> = None;
        while at < text.len() {
            match tokens.get(token) {
                Some(Token::Many) => {
                    resume = Some((token, at));
                    token += 1;
                }
                Some(Token::One) => (at, token) = (at + 1, token + 1),
                Some(Token::Literal(wanted)) if *wanted == text[at] => (at, token) = (at + 1, token + 1),
                _ => match resume {
                    Some((many, taken)) => {
                        resume = Some((many, taken + 1));
                        (at, token) = (taken + 1, many + 1);
                    }
                    None => return false,
                },
            }
        }
        tokens[token..].iter().all(|token| *token == Token::Many)
    }
}

/// A text whose variables are replaced, its wildcards taken literally.
pub(crate) fn expanded(text: &str, context: Option<&Context>) -> Option<String> {
    let pattern = Pattern::new(text, context)?;
    let plain = |token: &Token| match token {
        Token::Literal(literal) => *literal,
        Token::One => '?',
        Token::Many => '*',
    };
    Some(pattern.0.iter().map(plain).collect())
}

/// `*`, `?`, `$`, a condition key, or `key, 'default'`.
fn variable(name: &str, context: &Context) -> Option<String> {
    if let "*" | "?" | "$" = name {
        return Some(name.to_owned());
    }
    match name.split_once(',') {
        None => context.single(name.trim()).map(str::to_owned),
        Some((key, default)) => {
            let default = default.trim().strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            context.single(key.trim()).or(default).map(str::to_owned)
        }
    }
}

/// Whether a pattern without variables matches.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern, None).is_some_and(|pattern| pattern.matches(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_iam_says() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("*", "a/b", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*aab", "aaaab", true),
            ("é?", "éà", true),
            ("a", "A", false),
            ("a**", "a", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn variables_are_literal_and_absent_ones_match_nothing() {
        let mut context = Context::new();
        context.add("aws:username", "a*");
        let hit = |pattern: &str, text| Pattern::new(pattern, Some(&context)).is_some_and(|found| found.matches(text));
        assert!(hit("home/${aws:username}/*", "home/a*/x") && !hit("home/${aws:username}/*", "home/ab/x"));
        assert!(!hit("${aws:nothing}", "") && hit("${aws:nothing, 'd'}", "d") && hit("${*}", "*") && !hit("${*}", "x"));
        assert_eq!(expanded("${aws:username}?", Some(&context)).as_deref(), Some("a*?"));
        assert!(matches("${aws:username}", "${aws:username}"), "literal where variables mean nothing");
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "*a".repeat(2000);
        assert!(!matches(&pattern, &"a".repeat(1024)));
    }
}
