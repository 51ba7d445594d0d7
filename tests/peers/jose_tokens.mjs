// Signs and verifies tokens with jose. The folder of node_modules is the argument; request and answer as in pyjwt_tokens.py.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(process.argv[2] + "/");
const jose = await import(pathToFileURL(require.resolve("jose")).href);
const request = JSON.parse(readFileSync(0, "utf8"));
if (request.do === "sign") {
  const signed = new jose.SignJWT(request.claims).setProtectedHeader({ alg: "HS256" });
  console.log(JSON.stringify({ token: await signed.sign(Buffer.from(request.secret, "hex")) }));
  process.exit(0);
}
const options = {
  algorithms: [request.algorithm],
  audience: request.audience,
  issuer: request.issuer,
  requiredClaims: ["exp", "iat", "sub", "jti"],
};
const key = request.secret ? Buffer.from(request.secret, "hex") : jose.createLocalJWKSet(request.jwks);
try {
  const { payload } = await jose.jwtVerify(request.token, key, options);
  console.log(JSON.stringify({ claims: payload }));
} catch (error) {
  console.log(JSON.stringify({ error: error.code ?? error.name }));
}
