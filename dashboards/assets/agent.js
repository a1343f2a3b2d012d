// A short name for a user agent: a hint for the reader, never a decision.

const KNOWN = [
  [/HeadlessChrome\/(\d+)/, "Headless Chrome"], [/Edg\/(\d+)/, "Edge"], [/OPR\/(\d+)/, "Opera"],
  [/Firefox\/(\d+)/, "Firefox"], [/Chrome\/(\d+)/, "Chrome"], [/Version\/(\d+)[\d.]* .*Safari\//, "Safari"],
  [/^curl\/([\d.]+)/i, "curl"], [/^Wget\/([\d.]+)/i, "Wget"], [/^python-requests\/([\d.]+)/i, "python-requests"],
  [/^Go-http-client\/([\d.]+)/, "Go"], [/^node\b/i, "Node.js"], [/(?:^|\W)([A-Za-z-]*bot)\b/i, null],
];

export function agentName(agent) {
  for (const [pattern, name] of KNOWN) {
    const found = pattern.exec(agent);
    if (found) return name ? `${name} ${found[1] ?? ""}`.trim() : found[1];
  }
  return "";
}
