//! Users, their keys and policies, and groups.

use crate::testing::{Group, stamp};
use crate::{
    AccessKey, GroupChange, MemberKind, Operation, Outcome, Profile, REGISTERS_MAX, Secret, UserChange, UserRefusal,
    present, queries,
};

fn key(text: &str) -> AccessKey {
    AccessKey { secret_key: Secret(format!("secret of {text}")), active: true, created_unix_ms: 1 }
}

fn change(name: &str, change: UserChange) -> Operation {
    Operation::ChangeUser { name: name.to_owned(), change }
}

fn create(name: &str, access_key: &str) -> Operation {
    let profile = Profile { id: format!("id-{name}"), display_name: name.to_owned(), ..Profile::default() };
    change(name, UserChange::Create { profile, access_key: Some((access_key.to_owned(), key(access_key))) })
}

fn add_key(name: &str, access_key: &str) -> Operation {
    change(name, UserChange::PutAccessKey { access_key: access_key.to_owned(), key: key(access_key) })
}

fn delete_key(name: &str, access_key: &str) -> Operation {
    change(name, UserChange::DeleteAccessKey { access_key: access_key.to_owned() })
}

fn holder(catalog: &Group, key: &str) -> Option<String> {
    queries::user_by_access_key(&catalog.kv, key).unwrap().map(|user| user.name)
}

fn refused(refusal: UserRefusal) -> Outcome {
    Outcome::UserRefused(refusal)
}

#[test]
fn users_are_found_by_access_key_until_it_or_they_go() {
    let mut catalog = Group::catalog(1);
    assert_eq!(catalog.propose(create("bob", "K1")), Outcome::UserStored);
    assert_eq!(catalog.propose(add_key("bob", "K2")), Outcome::UserStored);
    assert_eq!(queries::user(&catalog.kv, "bob").unwrap().unwrap().updated, stamp(2, 1));
    assert_eq!((holder(&catalog, "K1"), holder(&catalog, "K")), (Some("bob".to_owned()), None));
    assert_eq!((holder(&catalog, ""), holder(&catalog, "K1\0b")), (None, None));
    let before = queries::user_changes(&catalog.kv).unwrap();
    catalog.propose(delete_key("bob", "K1"));
    assert_eq!(queries::user_changes(&catalog.kv).unwrap(), before + 1);
    assert_eq!((holder(&catalog, "K1"), holder(&catalog, "K2")), (None, Some("bob".to_owned())));
    assert_eq!(queries::users(&catalog.kv).unwrap().len(), 1);
    catalog.propose(change("bob", UserChange::Delete));
    assert_eq!((holder(&catalog, "K2"), queries::users(&catalog.kv).unwrap().len()), (None, 0));
    assert_eq!(queries::user(&catalog.kv, "bob").unwrap(), None);
    assert_eq!(catalog.propose(add_key("bob", "K3")), refused(UserRefusal::NotFound));
}

#[test]
fn names_ids_addresses_and_keys_have_one_holder() {
    let mut catalog = Group::catalog(1);
    catalog.propose(create("bob", "K1"));
    assert_eq!(catalog.propose(create("bob", "K9")), refused(UserRefusal::Exists));
    assert_eq!(catalog.propose(create("al", "K1")), refused(UserRefusal::AccessKeyTaken));
    let profile =
        |id: &str, email: &str| Profile { id: id.to_owned(), email: Some(email.to_owned()), ..Profile::default() };
    let make = |name: &str, profile| change(name, UserChange::Create { profile, access_key: None });
    assert_eq!(catalog.propose(make("al", profile("id-bob", "a@x"))), refused(UserRefusal::IdTaken));
    assert_eq!(catalog.propose(make("al", profile("id-al", "a@x"))), Outcome::UserStored);
    assert_eq!(catalog.propose(make("cy", profile("id-cy", "a@x"))), refused(UserRefusal::EmailTaken));
    let renamed = Profile { display_name: "Al".to_owned(), ..profile("other", "al@x") };
    assert_eq!(catalog.propose(change("al", UserChange::Profile(renamed))), Outcome::UserStored);
    let al = queries::user(&catalog.kv, "al").unwrap().unwrap();
    assert_eq!((al.profile.id.as_str(), al.profile.display_name.as_str()), ("id-al", "Al"), "the id stays");
    for bad in [create("", "K8"), create("a\0", "K8"), create("a", "")] {
        assert_eq!(catalog.propose(bad), refused(UserRefusal::Malformed));
    }
    assert_eq!(catalog.propose(delete_key("bob", "K7")), refused(UserRefusal::NoSuchAccessKey));
}

#[test]
fn a_name_used_again_brings_back_nothing() {
    let mut catalog = Group::catalog(1);
    catalog.propose(create("bob", "K1"));
    let policy = UserChange::Policy { name: "p".to_owned(), document: Some("{}".to_owned()) };
    catalog.propose(change("bob", policy));
    catalog.propose(change("bob", UserChange::Delete));
    assert_eq!(catalog.propose(create("bob", "K2")), Outcome::UserStored);
    let bob = queries::user(&catalog.kv, "bob").unwrap().unwrap();
    assert_eq!(present(&bob.access_keys).map(|(key, _)| key).collect::<Vec<_>>(), ["K2"]);
    assert_eq!(present(&bob.policies).count(), 0);
    assert_eq!(holder(&catalog, "K1"), None);
}

#[test]
fn keys_made_in_two_datacenters_at_once_both_stay() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(create("bob", "K0"));
    b.pull(&a);
    a.propose(add_key("bob", "KA"));
    b.propose(add_key("bob", "KB"));
    b.propose(delete_key("bob", "K0"));
    a.pull(&b);
    b.pull(&a);
    for catalog in [&a, &b] {
        let found = ["K0", "KA", "KB"].map(|key| holder(catalog, key).is_some());
        assert_eq!(found, [false, true, true]);
    }
    assert_eq!((a.rows_of(b'w'), a.rows_of(b'y')), (b.rows_of(b'w'), b.rows_of(b'y')));
}

#[test]
fn one_access_key_given_to_two_users_while_cut_off_has_one_holder_everywhere() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(create("bob", "K"));
    b.propose(create("al", "K"));
    a.pull(&b);
    b.pull(&a);
    assert_eq!((holder(&a, "K"), holder(&b, "K")), (Some("al".to_owned()), Some("al".to_owned())));
}

#[test]
fn groups_give_policies_and_members_join_only_those_that_are() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(create("bob", "K"));
    let join = |group: &str| change("bob", UserChange::Group { name: group.to_owned(), member: true });
    assert_eq!(a.propose(join("ops")), refused(UserRefusal::NoSuchGroup));
    let group = |change| Operation::ChangeGroup { name: "ops".to_owned(), change };
    assert_eq!(a.propose(group(GroupChange::Create)), Outcome::UserStored);
    assert_eq!(a.propose(group(GroupChange::Create)), refused(UserRefusal::Exists));
    let policy =
        |document: Option<&str>| GroupChange::Policy { name: "p".to_owned(), document: document.map(str::to_owned) };
    assert_eq!(a.propose(group(policy(None))), refused(UserRefusal::NoSuchPolicy));
    assert_eq!(a.propose(group(policy(Some("{}")))), Outcome::UserStored);
    assert_eq!(a.propose(join("ops")), Outcome::UserStored);
    b.pull(&a);
    let bob = queries::user(&b.kv, "bob").unwrap().unwrap();
    assert_eq!(present(&bob.groups).map(|(group, _)| group).collect::<Vec<_>>(), ["ops"]);
    let ops = queries::group(&b.kv, "ops").unwrap().unwrap();
    assert_eq!(present(&ops.policies).collect::<Vec<_>>(), [("p", &"{}".to_owned())]);
    assert_eq!(b.propose(group(GroupChange::Delete)), Outcome::UserStored);
    a.pull(&b);
    assert!(queries::groups(&a.kv).unwrap().is_empty());
}

#[test]
fn registers_of_one_row_are_bounded() {
    let mut catalog = Group::catalog(1);
    catalog.propose(create("bob", "K0"));
    for number in 1..REGISTERS_MAX {
        assert_eq!(catalog.propose(add_key("bob", &format!("K{number}"))), Outcome::UserStored);
    }
    assert_eq!(catalog.propose(add_key("bob", "one more")), refused(UserRefusal::TooMany));
}

fn member(row: &str, account: &str, name: &str, kind: MemberKind) -> Operation {
    let profile = Profile {
        id: row.to_owned(),
        display_name: name.to_owned(),
        account: Some(account.to_owned()),
        path: "/".to_owned(),
        kind,
        ..Profile::default()
    };
    change(row, UserChange::Create { profile, access_key: None })
}

#[test]
fn members_of_an_account_differ_by_name_and_those_of_two_accounts_need_not() {
    let mut catalog = Group::catalog(1);
    let user = MemberKind::User;
    assert_eq!(catalog.propose(member("A1", "acme", "Ann", user)), Outcome::UserStored);
    assert_eq!(catalog.propose(member("A2", "acme", "ann", user)), refused(UserRefusal::Exists));
    assert_eq!(catalog.propose(member("A2", "acme", "ann", MemberKind::Role)), Outcome::UserStored);
    assert_eq!(catalog.propose(member("A3", "other", "ann", user)), Outcome::UserStored);
    assert_eq!(catalog.propose(member("A4", "acme", "bob", user)), Outcome::UserStored);
    let renamed = Profile { display_name: "ANN".to_owned(), path: "/".to_owned(), ..Profile::default() };
    assert_eq!(catalog.propose(change("A4", UserChange::Profile(renamed.clone()))), refused(UserRefusal::Exists));
    assert_eq!(catalog.propose(change("A1", UserChange::Profile(renamed))), Outcome::UserStored);
    let ann = queries::user(&catalog.kv, "A1").unwrap().unwrap();
    assert_eq!((ann.profile.display_name.as_str(), ann.account()), ("ANN", "acme"), "the account stays");
    assert_eq!(queries::users(&catalog.kv).unwrap().len(), 3, "a role is no user");
    assert_eq!(queries::all_members(&catalog.kv).unwrap().len(), 4);
}

#[test]
fn what_is_attached_comes_and_goes_and_members_join_groups_of_their_account() {
    let (mut a, mut b) = (Group::catalog(1), Group::catalog(2));
    a.propose(member("A1", "acme", "ann", MemberKind::User));
    a.propose(member("G1", "acme", "ops", MemberKind::Group));
    let attach = |attached| change("A1", UserChange::Attach { arn: "arn:p".to_owned(), attached });
    assert_eq!(a.propose(attach(false)), refused(UserRefusal::NoSuchPolicy));
    assert_eq!(a.propose(attach(true)), Outcome::UserStored);
    let join = |group: &str| change("A1", UserChange::Group { name: group.to_owned(), member: true });
    assert_eq!(a.propose(join("A1")), refused(UserRefusal::NoSuchGroup));
    assert_eq!(a.propose(join("G1")), Outcome::UserStored);
    b.pull(&a);
    let ann = queries::user(&b.kv, "A1").unwrap().unwrap();
    assert_eq!(present(&ann.attached).map(|(arn, ())| arn).collect::<Vec<_>>(), ["arn:p"]);
    assert_eq!(present(&ann.groups).map(|(group, ())| group).collect::<Vec<_>>(), ["G1"]);
    assert_eq!(b.propose(attach(false)), Outcome::UserStored);
    a.pull(&b);
    assert_eq!(present(&queries::user(&a.kv, "A1").unwrap().unwrap().attached).count(), 0);
}
