//! The examples of RFC 7515 appendix A, RFC 7520 §4 and RFC 8037 appendix A.

use super::vectors;
use crate::identity::jose::reason::{KeyReason, Reason};
use crate::identity::jose::{Key, Token};
use serde_json::{Value, json};

const RFC_7515_A2_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RFC_7515_PAYLOAD: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const RFC_7515_A2_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

fn verify(jwk: &Value, jws: &str) -> Result<(), Reason> {
    Key::from_jwk(jwk).expect("the key is good").verify(&Token::parse(jws)?)
}

#[test]
fn rfc_jose_json() {
    let Some(file) = vectors("rfc_jose.json") else { return };
    for (name, case) in file.as_object().expect("named cases") {
        assert_eq!(verify(&case["jwk"], case["jws"].as_str().expect("a token")), Ok(()), "{name}");
    }
}

#[test]
fn rfc_7515_a_2_rs256() {
    let jwk = json!({"kty": "RSA", "n": RFC_7515_A2_N, "e": "AQAB"});
    let jws = format!("eyJhbGciOiJSUzI1NiJ9.{RFC_7515_PAYLOAD}.{RFC_7515_A2_SIGNATURE}");
    assert_eq!(verify(&jwk, &jws), Ok(()));
}

#[test]
fn rfc_7515_a_4_es512_is_not_supported() {
    let x = "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk";
    let y = "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2";
    let jwk = json!({"kty": "EC", "crv": "P-521", "x": x, "y": y});
    assert_eq!(Key::from_jwk(&jwk).unwrap_err(), KeyReason::UnsupportedKey);
    let jws = format!("eyJhbGciOiJFUzUxMiJ9.{RFC_7515_PAYLOAD}.AAAA");
    assert_eq!(Token::parse(&jws).unwrap_err(), Reason::UnknownAlgorithm);
}

#[test]
fn rfc_7515_a_5_unsecured_is_refused() {
    let jws = format!("eyJhbGciOiJub25lIn0.{RFC_7515_PAYLOAD}.");
    assert_eq!(Token::parse(&jws).unwrap_err(), Reason::AlgorithmNone);
}

/// §4.2 (PS384) is in Wycheproof's file with the wrong `alg` in its key: here with the right one. §4.1 and §4.4 are
/// Wycheproof's 345 and 348; §4.3 is ES512.
#[test]
fn rfc_7520_4_2_ps384() {
    let Some(file) = vectors("wycheproof/json_web_signature_test.json") else { return };
    let groups = file["testGroups"].as_array().expect("groups");
    let group = groups.iter().find(|group| group["tests"][0]["tcId"] == 346).expect("case 346");
    let mut jwk = group["public"].clone();
    let jws = group["tests"][0]["jws"].as_str().expect("a token");
    assert_eq!(verify(&jwk, jws), Err(Reason::AlgorithmMismatch));
    jwk["alg"] = "PS384".into();
    assert_eq!(verify(&jwk, jws), Ok(()));
}
