//! Who a process runs as, by the container's own `/etc/passwd` and `/etc/group`.

use crate::spec::{Identity, User};

/// What the two files say, and nothing where they do not.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Text of `/etc/passwd`, passwd(5).
    pub(crate) passwd: String,
    /// Text of `/etc/group`, group(5).
    pub(crate) group: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) identity: Identity,
    /// `/` when no account says otherwise.
    pub(crate) home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Accounts {
    /// Resolves as runc does: a number is always that number, never an account that is called so (an image could name
    /// its root `1000` and pass every check for a user that is not root); one that no account has has group 0.
    pub(crate) fn resolve(&self, user: &User) -> Result<Resolved, String> {
        let (wanted_user, wanted_group) = match user.user.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (user.user.as_str(), None),
        };
        let wanted_user = if wanted_user.is_empty() { "0" } else { wanted_user };
        let number = number_of(wanted_user)?;
        let account = self.accounts().find(|account| match number {
            Some(number) => account.uid == number,
            None => account.name == wanted_user,
        });
        let (uid, account_gid) = match (&account, number) {
            (Some(account), _) => (account.uid, account.gid),
            (None, Some(number)) => (number, 0),
            (None, None) => {
                return Err(format!("unable to find user {wanted_user}: no matching entries in passwd file"));
            }
        };
        let gid = match (user.group, wanted_group.filter(|group| !group.is_empty())) {
            (Some(group), _) => group,
            (None, Some(group)) => self.group_number(group)?,
            (None, None) => account_gid,
        };
        let mut groups = user.additional_groups.clone();
        if user.merge_image_groups
            && let Some(account) = &account
        {
            groups.extend(self.memberships(account.name));
        }
        // The primary group is one of the process's groups in every runtime's answer.
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        if uid > LARGEST_ID || groups.iter().any(|group| *group > LARGEST_ID) {
            return Err(OUT_OF_RANGE.to_owned());
        }
        let home = account.map(|account| account.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
        Ok(Resolved { identity: Identity { uid, gid, groups }, home })
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
        })
    }

    /// (name, number, members)
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or_default()))
        })
    }

    fn group_number(&self, wanted: &str) -> Result<u32, String> {
        if let Some(number) = number_of(wanted)? {
            return Ok(number);
        }
        let found = self.groups().find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid);
        found.ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))
    }

    fn memberships<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> {
        self.groups()
            .filter(move |(.., members)| members.split(',').any(|member| member.trim() == user))
            .map(|(_, gid, _)| gid)
    }
}

/// `None` for a name. A number beyond any u32 is no name either.
fn number_of(text: &str) -> Result<Option<u32>, String> {
    match text.parse::<i128>() {
        Ok(number) => u32::try_from(number).map(Some).map_err(|_| OUT_OF_RANGE.to_owned()),
        Err(_) => Ok(None),
    }
}

/// As runc's. To setresuid(2) the largest u32 means "leave it": the process would stay root (compare CVE-2024-40635).
const LARGEST_ID: u32 = i32::MAX.cast_unsigned();
const OUT_OF_RANGE: &str = "uids and gids must be in range 0-2147483647";

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\n# comment\n\nweb:x:33:33::/var/www:/bin/false\n\
                     1000:x:0:0::/seven:\napp:x:1000:1000::/home/app:\n\
                     stays:x:4294967295:1::/:"
                .into(),
            group: "root:x:0:\n50:x:0:\nweb:x:33:\nextra:x:50:app,web\nother:x:51:web\nhuge:x:4294967295:\n".into(),
        }
    }

    #[test]
    fn resolves_as_an_image_user_line_is_meant() {
        // user line, group override, merge → uid, gid, groups, home
        type Case = (&'static str, Option<u32>, bool, u32, u32, &'static [u32], &'static str);
        #[rustfmt::skip]
        let cases: &[Case] = &[
            ("",            None,    true,  0,    0,    &[0],          "/root"),
            ("web",         None,    true,  33,   33,   &[33, 50, 51], "/var/www"),
            ("web",         None,    false, 33,   33,   &[33],         "/var/www"),
            ("33",          None,    true,  33,   33,   &[33, 50, 51], "/var/www"),
            ("33",          Some(9), true,  33,   9,    &[9, 50, 51],  "/var/www"),
            ("web:extra",   None,    false, 33,   50,   &[50],         "/var/www"),
            ("web:77",      None,    false, 33,   77,   &[77],         "/var/www"),
            ("4242",        None,    true,  4242, 0,    &[0],          "/"),
            ("4242:4343",   None,    true,  4242, 4343, &[4343],       "/"),
            ("1000",        None,    true,  1000, 1000, &[50, 1000],   "/home/app"),
            ("web:50",      None,    false, 33,   50,   &[50],         "/var/www"),
            (":extra",      None,    false, 0,    50,   &[50],         "/root"),
        ];
        for &(user, group, merge_image_groups, uid, gid, groups, home) in cases {
            let user = User { user: user.into(), group, additional_groups: Vec::new(), merge_image_groups };
            let resolved = accounts().resolve(&user).expect("resolves");
            let expected = Identity { uid, gid, groups: groups.to_vec() };
            assert_eq!(resolved, Resolved { identity: expected, home: home.into() }, "{user:?}");
        }
    }

    #[test]
    fn additional_groups_join_and_repeat_nothing() {
        let user = User { additional_groups: vec![7, 3, 7], ..User::default() };
        assert_eq!(accounts().resolve(&user).expect("resolves").identity.groups, [0, 3, 7]);
    }

    #[test]
    fn unknown_names_are_refused_in_runc_words() {
        let refusal = |user: &str| accounts().resolve(&User { user: user.into(), ..User::default() }).unwrap_err();
        assert_eq!(refusal("nobody"), "unable to find user nobody: no matching entries in passwd file");
        for outside in ["4294967295", "2147483648", "-1", "99999999999", "web:4294967295", "stays", "web:huge"] {
            assert_eq!(refusal(outside), OUT_OF_RANGE, "{outside}");
        }
        assert_eq!(refusal("web:none"), "unable to find group none: no matching entries in group file");
    }

    #[test]
    fn without_files_only_numbers_resolve() {
        let resolved = Accounts::default().resolve(&User { user: "12:34".into(), ..User::default() });
        assert_eq!(resolved.expect("resolves").identity, Identity { uid: 12, gid: 34, groups: vec![34] });
    }
}
