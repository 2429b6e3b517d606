//! A request's query: each parameter known, and given once. An unknown one is refused, because a misspelled filter
//! would otherwise list everything.

use percent_encoding::percent_decode_str;

use super::problem::Mistake;

/// The parameters, and what was found wrong with them on the way.
#[derive(Debug)]
pub struct Query {
    given: Vec<(String, String)>,
    /// As they came, with their decoded names.
    raw: Vec<(String, String)>,
    mistakes: Vec<Mistake>,
}

impl Query {
    /// Reads the parameters of these names. A `+` is a plus: no parameter here may have a space, and addresses have
    /// pluses.
    #[must_use]
    pub fn parse(query: Option<&str>, known: &[&str]) -> Self {
        Self::read(query, known, None)
    }

    /// Reads the parameters of these names and all whose names begin so.
    #[must_use]
    pub fn with_family(query: Option<&str>, known: &[&str], family: &str) -> Self {
        Self::read(query, known, Some(family))
    }

    fn read(query: Option<&str>, known: &[&str], family: Option<&str>) -> Self {
        let is_known = |name: &str| known.contains(&name) || family.is_some_and(|family| name.starts_with(family));
        let mut read = Self { given: Vec::new(), raw: Vec::new(), mistakes: Vec::new() };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text| percent_decode_str(text).decode_utf8().map(String::from);
            match (decoded(name), decoded(value)) {
                (Ok(name), _) if !is_known(&name) => {
                    let family = family.map_or(String::new(), |family| format!(", {family}…"));
                    let detail = format!("is unknown here: use {}{family}", known.join(", "));
                    read.mistakes.push(Mistake::parameter(name, &detail));
                }
                (Ok(name), _) if read.given.iter().any(|(given, _)| *given == name) => {
                    read.mistakes.push(Mistake::parameter(name, &"is given twice"));
                }
                (Ok(name), Ok(value)) => {
                    read.raw.push((name.clone(), pair.to_owned()));
                    read.given.push((name, value));
                }
                _ => read.mistakes.push(Mistake::parameter(name, &"is no percent-encoded UTF-8")),
            }
        }
        read
    }

    /// One parameter, if it is given; what is wrong with it is remembered.
    pub fn take<T, E: ToString>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let (_, value) = self.given.iter().find(|(given, _)| given == name)?;
        match parse(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistakes.push(Mistake::parameter(name, &error));
                None
            }
        }
    }

    /// Whether a parameter is given, be it right or wrong.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| given == name)
    }

    /// The names of the parameters given that begin so.
    #[must_use]
    pub fn family(&self, start: &str) -> Vec<String> {
        self.given.iter().filter(|(name, _)| name.starts_with(start)).map(|(name, _)| name.clone()).collect()
    }

    /// The query as it came, without this parameter.
    #[must_use]
    pub fn without(&self, name: &str) -> String {
        let others = self.raw.iter().filter(|(given, _)| given != name).map(|(_, pair)| pair.as_str());
        others.collect::<Vec<_>>().join("&")
    }

    /// Whether nothing is wrong so far.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Remembers what takes more than one parameter to see.
    pub fn refuse(&mut self, name: &str, detail: &str) {
        self.mistakes.push(Mistake::parameter(name, &detail));
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn finish(self) -> Result<(), Vec<Mistake>> {
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.mistakes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<u8, std::num::ParseIntError> {
        text.parse()
    }

    #[test]
    fn a_parameter_is_decoded_and_its_plus_stays() {
        let mut query = Query::parse(Some("email=a+b%2Bc%40d.e&limit=7&"), &["email", "limit"]);
        assert_eq!(query.take("email", |text| Ok::<_, String>(text.to_owned())).unwrap(), "a+b+c@d.e");
        assert_eq!(query.take("limit", whole), Some(7));
        assert!(query.finish().is_ok());
        assert!(Query::parse(None, &[]).finish().is_ok());
        let query = Query::parse(Some("email=a%2Bb@c.de&%63ursor=x&limit=7"), &["email", "limit", "cursor"]);
        assert_eq!(query.without("cursor"), "email=a%2Bb@c.de&limit=7");
        assert!(query.has("cursor") && !query.has("fields"));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut query = Query::parse(Some("emial=x&limit=1&limit=2&from=%ff&to=x"), &["limit", "from", "to"]);
        assert_eq!(query.take("to", whole), None);
        let Err(mistakes) = query.finish() else { panic!("accepted") };
        let told = serde_json::to_string(&mistakes).unwrap();
        for name in ["emial", "limit", "from", "to"] {
            assert!(told.contains(&format!("{{\"parameter\":\"{name}\"")), "{told}");
        }
    }
}
