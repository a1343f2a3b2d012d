// HTTP clients of Node: reads METHOD TAB URL TAB BODY a line, answers with the status.
// Usage: fetch.js fetch|axios|got|cycletls
'use strict'
const readline = require('node:readline')

const told = JSON.parse(process.env.JA4REC_TOLD)
const LIMIT_MS = 20000
// Chrome's cipher suites and extensions as a JA3 string, as CycleTLS is told them.
const JA3 = '771,4865-4866-4867-49195-49199-49196-49200-52393-52392-49171-49172-156-157-47-53,' +
  '45-51-13-43-0-16-23-18-10-27-35-17613-65281-5-65037-11,4588-29-23-24,0'

const FORM = 'application/x-www-form-urlencoded'
const type = (body) => body && { 'Content-Type': body.startsWith('{') ? 'application/json' : FORM }

async function tool (name) {
  if (name === 'axios') {
    const axios = require('axios')
    return async (method, url, data) => (await axios({
      method, url, data, headers: { ...told.headers, ...type(data) }, validateStatus: () => true, maxRedirects: 0,
      timeout: LIMIT_MS
    })).status
  }
  if (name === 'got') {
    const { default: got } = await import('got')
    return async (method, url, body) => (await got(url, {
      method, body, headers: { ...told.headers, ...type(body) }, throwHttpErrors: false, followRedirect: false,
      http2: true, retry: { limit: 0 }, timeout: { request: LIMIT_MS }
    })).statusCode
  }
  if (name === 'cycletls') {
    const cycle = await require('cycletls')({ port: 9100 })
    return async (method, url, body) => (await cycle(url, {
      body: body ?? '', ja3: JA3, userAgent: told.agent, headers: { ...told.headers, ...type(body) },
      insecureSkipVerify: true, disableRedirect: true, timeout: LIMIT_MS / 1000
    }, method.toLowerCase())).status
  }
  return async (method, url, body) => {
    const answer = await fetch(url, {
      method, body, headers: { ...told.headers, ...type(body) }, redirect: 'manual',
      signal: AbortSignal.timeout(LIMIT_MS)
    })
    await answer.arrayBuffer()
    return answer.status
  }
}

async function main () {
  const request = await tool(process.argv[2])
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [method, url, body] = line.split('\t')
    let status = 0
    try { status = await request(method, url, body || undefined) } catch (error) { console.error(String(error)) }
    console.log(status)
  }
  process.exit(0)
}

main()
