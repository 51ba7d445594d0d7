"""Generates tokens, good and mutated, and judges each with PyJWT. One JSON object a line: token, valid, error, mutation.

Usage: pyjwt_oracle.py keys KEYS.json
       pyjwt_oracle.py SEED COUNT ISSUER AUDIENCE NOW KEYS.json

The first makes the keys, one for each algorithm: [{kid, alg, secret (hex) | private_pem, public_pem, jwk}].
"""

import base64
import json
import random
import sys

import jwt


def make_keys(file):
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    made = [{"kid": "hs256", "alg": "HS256", "secret": random.SystemRandom().randbytes(32).hex()}]
    for alg, private in [
        ("RS256", rsa.generate_private_key(65537, 2048)),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ]:
        private_pem = private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()
        public = private.public_key()
        public_pem = public.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode()
        jwk = jwt.get_algorithm_by_name(alg).to_jwk(public, as_dict=True)
        jwk.update(kid=alg.lower(), alg=alg)
        made.append({"kid": jwk["kid"], "alg": alg, "private_pem": private_pem, "public_pem": public_pem, "jwk": jwk})
    with open(file, "w") as out:
        json.dump(made, out)


if sys.argv[1] == "keys":
    make_keys(sys.argv[2])
    sys.exit()

seed, count, issuer, audience, now, keys_file = sys.argv[1:7]
now = int(now)
rng = random.Random(int(seed))
keys = json.load(open(keys_file))


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def prepare(key):
    """The signing and the verifying half, parsed once: checking an RSA key takes longer than signing with it."""
    if "secret" in key:
        secret = bytes.fromhex(key["secret"])
        return secret, secret
    algorithm = jwt.get_algorithm_by_name(key["alg"])
    return algorithm.prepare_key(key["private_pem"]), algorithm.prepare_key(key["public_pem"])


material = {key["kid"]: prepare(key) for key in keys}


def claims():
    return {"iss": issuer, "aud": audience, "sub": "user-%d" % rng.randrange(1000), "iat": now - 10, "exp": now + 3600}


def replace(name, values):
    def change(body, header):
        body[name] = rng.choice(values)
    change.__name__ = "claim_" + name
    return change


def remove(name):
    def change(body, header):
        body.pop(name)
    change.__name__ = "without_" + name
    return change


def header(name, values):
    def change(body, header):
        header[name] = rng.choice(values)
    change.__name__ = "header_" + name
    return change


def nothing(body, header):
    pass


DAY = 86400
CHANGES = [
    nothing, nothing, nothing, nothing,
    replace("exp", [now - 1, now - DAY, now + DAY, 0, -5, str(now + DAY), now + 0.5, 1e40, None, True, [], {}]),
    replace("nbf", [now - DAY, now + DAY, 0, -1, str(now - DAY), now - 0.5, None, False, []]),
    replace("iat", [now - DAY, now + DAY, 0, -1, "x", now - 0.5, None, {}]),
    replace("aud", [audience, [audience], ["x", audience], "x", [], ["x"], None, 7, [7], {}]),
    replace("iss", [issuer, issuer + "/", "", None, 7, [issuer]]),
    replace("sub", ["u", "user::x", "", " ", None, 7, [], "x" * 255, "x" * 256, "tab\there", "å"]),
    replace("jti", ["id", "", None, 7]),
    remove("exp"), remove("aud"), remove("iss"), remove("sub"), remove("iat"),
    header("alg", ["none", "NONE", "HS256", "HS384", "RS256", "ES256", "EdDSA", "", "XX"]),
    header("kid", [k["kid"] for k in keys] + ["nobody", "", 7]),
    header("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", "dpop+jwt", "X", 7, None]),
    header("crit", [["exp"], [], ["b64"], "x"]),
    header("b64", [False, True]),
    header("zip", ["DEF"]),
    header("jwk", [{"kty": "oct", "k": "AAAA"}]),
    header("jku", ["https://evil.test/jwks"]),
    header("cty", ["JWT", "json"]),
]


def sign(key, body, head):
    signing, _ = material[key["kid"]]
    algorithm = jwt.get_algorithm_by_name(key["alg"])
    text = b64(json.dumps(head).encode()) + "." + b64(json.dumps(body).encode())
    return text + "." + b64(algorithm.sign(text.encode(), signing))


def mangle(token):
    """A change of the serialisation: bits, parts, padding."""
    kind = rng.choice(["bit", "part", "pad", "case", "cut", "space", "swap"])
    parts = token.split(".")
    if kind == "bit":
        at = rng.randrange(len(token))
        other = rng.choice([c for c in "ABCDxyz0189-_." if c != token[at]])
        token = token[:at] + other + token[at + 1:]
    elif kind == "part":
        parts.insert(rng.randrange(4), rng.choice(["", "AAAA"]))
        token = ".".join(parts)
    elif kind == "pad":
        token += rng.choice(["=", "==", "===="])
    elif kind == "case":
        token = token.swapcase()
    elif kind == "cut":
        token = token[:rng.randrange(len(token))]
    elif kind == "space":
        at = rng.randrange(len(token) + 1)
        token = token[:at] + rng.choice([" ", "\n", "\t"]) + token[at:]
    else:
        parts[0], parts[1] = parts[1], parts[0]
        token = ".".join(parts)
    return kind, token


def judge(token):
    """PyJWT as a careful service would call it: key by kid, its algorithm only, exp, aud, iss and sub required."""
    try:
        head = jwt.get_unverified_header(token)
        key = next((k for k in keys if k["kid"] == head.get("kid")), None)
        if key is None:
            return "no such kid"
        jwt.decode(
            token, material[key["kid"]][1], algorithms=[key["alg"]], audience=audience, issuer=issuer,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return None
    except Exception as error:  # any refusal counts, a crash of the library's as well
        return type(error).__name__


for _ in range(int(count)):
    key = rng.choice(keys)
    body, head = claims(), {"alg": key["alg"], "kid": key["kid"], "typ": "JWT"}
    change = rng.choice(CHANGES)
    change(body, head)
    name = change.__name__
    token = sign(key, body, head)
    if rng.random() < 0.2:
        kind, token = mangle(token)
        name += "+" + kind
    error = judge(token)
    print(json.dumps({"token": token, "valid": error is None, "error": error, "mutation": name}))
