// One person with a browser: Debian's Chromium, headless, driven by playwright-core.
// Usage: browser.js reader|shopper|searcher USER_AGENT
//
// Without a window the build says HeadlessChrome in its User-Agent, and nowhere else (the client hints are the
// same); --user-agent sets what it says with one. TLS, HTTP/2, header order and caching are Chromium's own, for
// which reason nothing is overridden over the debugging protocol: that would move headers about.
// Counts come from Chromium's NetLog: they include what pages do not see, favicons and speculative connections.
'use strict'
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { chromium } = require('playwright-core')

const WWW = 'https://www.example.test'
const SHOP = 'https://shop.example.test'
const JOURNEYS = { reader, shopper, searcher }
const FLAGS = [
  '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--lang=en-US'
]

// Seeded like the other clients' (mulberry32); a person's pauses, not a cryptographer's.
let state = Number(process.env.JA4REC_SEED)
function random () {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}
const choose = (list) => list[Math.floor(random() * list.length)]

async function main () {
  const [journey, userAgent] = process.argv.slice(2)
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'ja4rec-browser-'))
  try {
    trustAuthority(home)
    const netLog = path.join(home, 'net.json')
    await browse(JOURNEYS[journey], userAgent, home, netLog)
    console.log(JSON.stringify(count(netLog)))
  } finally {
    fs.rmSync(home, { recursive: true, force: true, maxRetries: 5 })
  }
}

async function browse (journey, userAgent, home, netLog) {
  const context = await chromium.launchPersistentContext(path.join(home, 'profile'), {
    executablePath: '/usr/bin/chromium',
    headless: true,
    args: [...FLAGS, `--user-agent=${userAgent}`, `--log-net-log=${netLog}`],
    env: { ...process.env, HOME: home },
    viewport: { width: 1366, height: 768 }
  })
  try {
    await journey(context.pages()[0] ?? await context.newPage())
  } finally {
    await context.close()
  }
}

// Chromium on Linux trusts the authorities in the NSS database of its user.
function trustAuthority (home) {
  const database = path.join(home, '.pki/nssdb')
  fs.mkdirSync(database, { recursive: true })
  execFileSync('certutil', ['-d', `sql:${database}`, '-N', '--empty-password'])
  execFileSync('certutil', ['-d', `sql:${database}`, '-A', '-t', 'C,,', '-n', 'recording', '-i', process.env.JA4REC_CA])
}

async function reader (page) {
  await visit(page, WWW + '/')
  for (let articles = 0; articles < 34; articles += 1) {
    await follow(page, 'ul a')
    if (articles % 5 === 4) await visit(page, WWW + '/')
  }
  await follow(page, 'nav a[href="/about.html"]')
}

async function shopper (page) {
  await visit(page, SHOP + '/shop/')
  for (let items = 0; items < 14; items += 1) {
    await follow(page, '.shelf a')
    if (items % 2) {
      await page.click('#add')
      await read(page, 2)
    }
    await page.goBack({ waitUntil: 'networkidle' })
    await read(page, 3)
  }
  await visit(page, SHOP + ':8443/shop/')
  await follow(page, '.shelf a')
}

async function searcher (page) {
  await visit(page, WWW + '/')
  await follow(page, 'nav a[href="/login.html"]')
  await signIn(page, 'wrong-once')
  await visit(page, WWW + '/login.html')
  await signIn(page, 'correct-horse')
  for (const words of ['lamp', 'winter garden', 'copper & bread', 'bicycle repair']) {
    await visit(page, WWW + '/')
    await page.locator('nav input').pressSequentially(words, { delay: 90 + random() * 80 })
    await Promise.all([page.waitForNavigation({ waitUntil: 'networkidle' }), page.press('nav input', 'Enter')])
    await read(page, 4)
    await follow(page, 'a')
    for (let articles = 0; articles < 4; articles += 1) await follow(page, 'ul a')
  }
}

async function signIn (page, password) {
  await page.locator('form[action="/login"] input[name=user]').pressSequentially('reader', { delay: 120 })
  await page.locator('input[name=password]').pressSequentially(password, { delay: 110 })
  await Promise.all([page.waitForNavigation({ waitUntil: 'networkidle' }), page.click('form[action="/login"] button')])
  await read(page, 2)
}

// Types an address.
async function visit (page, url) {
  await page.goto(url, { waitUntil: 'networkidle' })
  await read(page, 4)
}

// Clicks one of the links that match.
async function follow (page, selector) {
  const links = await page.locator(selector).all()
  await Promise.all([page.waitForNavigation({ waitUntil: 'networkidle' }), choose(links).click()])
  await read(page, 5)
}

// A person reads, moves the mouse and scrolls; most pauses are short, some are long.
async function read (page, seconds) {
  await page.mouse.move(200 + random() * 800, 150 + random() * 400, { steps: 8 })
  await page.mouse.wheel(0, 200 + random() * 500)
  await page.waitForTimeout(1000 * seconds * (0.3 + random() * random() * 2.5))
}

// Requests that went out and TLS handshakes that began, by Chromium's own log.
function count (netLog) {
  const log = JSON.parse(fs.readFileSync(netLog, 'utf8'))
  const { logEventTypes: types, logEventPhase: phases } = log.constants
  const begun = (name) => log.events.filter((e) => e.type === types[name] && e.phase === phases.PHASE_BEGIN).length
  return { requests: begun('HTTP_TRANSACTION_SEND_REQUEST'), hellos: begun('SSL_CONNECT') }
}

main().catch((error) => { console.error(error); process.exit(1) })
