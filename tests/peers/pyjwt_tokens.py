"""Signs and verifies tokens with PyJWT. One request as JSON on stdin, one answer as JSON on stdout.

{"do": "sign", "claims": {...}, "secret": hex, "kid": null | text} -> {"token": text}
{"do": "verify", "token": text, "jwks": {...} | null, "secret": hex | null, "algorithm", "audience", "issuer"}
  -> {"claims": {...}} | {"error": name}
"""

import json
import sys

import jwt

request = json.load(sys.stdin)
if request["do"] == "sign":
    headers = {"kid": request["kid"]} if request.get("kid") else None
    token = jwt.encode(request["claims"], bytes.fromhex(request["secret"]), algorithm="HS256", headers=headers)
    print(json.dumps({"token": token}))
else:
    token = request["token"]
    try:
        if request.get("secret"):
            key = bytes.fromhex(request["secret"])
        else:
            kid = jwt.get_unverified_header(token)["kid"]
            key = jwt.PyJWKSet.from_dict(request["jwks"])[kid].key
        claims = jwt.decode(
            token, key, algorithms=[request["algorithm"]], audience=request["audience"], issuer=request["issuer"],
            options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]},
        )
        print(json.dumps({"claims": claims}))
    except jwt.PyJWTError as error:
        print(json.dumps({"error": type(error).__name__}))
