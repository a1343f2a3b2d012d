// Browsers for people and for bots: starts one, with the recording's authority trusted, behind a few functions that
// Puppeteer's pages and Playwright's have in common. Everything random is seeded.
'use strict'
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const WWW = 'https://www.example.test'
const SHOP = 'https://shop.example.test'
const PAGE_LIMIT_MS = 20000
const FLAGS = [
  '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-gpu', '--disable-dev-shm-usage'
]

function randomness (seed) {
  // mulberry32
  let state = seed
  const random = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const choose = (list) => list[Math.floor(random() * list.length)]
  return { random, normal, choose }
}

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds))

// A folder for the browser's profile, in which its NSS database trusts the authority: Chromium's is its user's,
// Firefox's lies in the profile.
function makeHome (plan) {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), 'ja4rec-browser-'))
  const profile = path.join(home, 'profile')
  fs.mkdirSync(profile)
  const database = plan.engine === 'firefox' ? profile : path.join(home, '.pki/nssdb')
  fs.mkdirSync(database, { recursive: true })
  execFileSync('certutil', ['-d', `sql:${database}`, '-N', '--empty-password'])
  execFileSync('certutil', ['-d', `sql:${database}`, '-A', '-t', 'C,,', '-n', 'recording', '-i', process.env.JA4REC_CA])
  return home
}

function removeHome (home) {
  fs.rmSync(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 300 })
}

// What a person has set: no pictures, no Referer, another language, a proxy. (Without scripts Firefox is not driven.)
function firefoxPreferences (plan) {
  const wanted = {
    'intl.accept_languages': plan.language.split(';')[0],
    'network.http.speculative-parallel-limit': 6,
    'browser.sessionstore.resume_from_crash': false,
    'network.captive-portal-service.enabled': false,
    'network.connectivity-service.enabled': false
  }
  if (plan.block.includes('image')) wanted['permissions.default.image'] = 2
  if (plan.private) {
    Object.assign(wanted, {
      'network.http.sendRefererHeader': 0, 'privacy.globalprivacycontrol.enabled': true,
      'privacy.globalprivacycontrol.functionality.enabled': true
    })
  }
  if (plan.proxy) {
    const { hostname, port } = new URL(plan.proxy)
    Object.assign(wanted, {
      'network.proxy.type': 1, 'network.proxy.ssl': hostname, 'network.proxy.ssl_port': Number(port),
      'network.proxy.http': hostname, 'network.proxy.http_port': Number(port)
    })
  }
  return wanted
}

function chromiumFlags (plan) {
  const flags = [...FLAGS, `--lang=${plan.language.split(',')[0]}`, `--accept-lang=${plan.language.split(';')[0]}`]
  if (plan.agent) flags.push(`--user-agent=${plan.agent}`)
  if (plan.proxy) flags.push(`--proxy-server=${plan.proxy}`)
  if (plan.block.includes('image')) flags.push('--blink-settings=imagesEnabled=false')
  return flags
}

// Puppeteer. `bare`: none of its flags, as little as a browser can have that is driven at all.
async function startPuppeteer (plan, home) {
  const { default: puppeteer } = await import('puppeteer-core')
  const environment = { ...process.env, HOME: home }
  const userDataDir = path.join(home, 'profile')
  if (plan.engine === 'firefox') {
    return await puppeteer.launch({
      browser: 'firefox', executablePath: plan.path, headless: true, userDataDir, env: environment,
      extraPrefsFirefox: firefoxPreferences(plan), defaultViewport: null
    })
  }
  const bare = plan.bare ? { ignoreDefaultArgs: true } : {}
  const args = [...(plan.bare ? ['--headless=new', `--user-data-dir=${userDataDir}`] : []), ...chromiumFlags(plan)]
  return await puppeteer.launch({
    executablePath: plan.path, headless: true, userDataDir, env: environment, args, defaultViewport: null, ...bare
  })
}

// Playwright, or Patchright: a persistent context, or for a bot that comes new each time a browser to make contexts in.
async function startPlaywright (plan, home) {
  const { chromium } = require(`${plan.tool}-core`)
  const env = { ...process.env, HOME: home }
  const options = { executablePath: plan.path, headless: true, args: chromiumFlags(plan), env }
  if (plan.fresh) return await chromium.launch(options)
  return await chromium.launchPersistentContext(path.join(home, 'profile'), options)
}

async function start (plan, home) {
  return plan.tool === 'puppeteer' ? await startPuppeteer(plan, home) : await startPlaywright(plan, home)
}

// A page of a new context, and what ends it.
async function freshPage (plan, browser) {
  const context = plan.tool === 'puppeteer' ? await browser.createBrowserContext() : await browser.newContext()
  return { page: await context.newPage(), close: () => context.close() }
}

async function firstPage (browser) {
  const pages = await browser.pages()
  return pages.find((page) => page.url() === 'about:blank') ?? pages[0] ?? await browser.newPage()
}

// Patterns that are not loaded, as a blocker's list does it; Firefox's are preferences.
async function block (plan, page) {
  if (plan.engine === 'firefox' || !plan.block.length) return
  const patterns = { style: '*.css', script: '*.js', api: '*/api/*' }
  const urls = plan.block.map((kind) => patterns[kind]).filter(Boolean)
  if (!urls.length) return
  const session = plan.tool === 'puppeteer' ? await page.createCDPSession() : await page.context().newCDPSession(page)
  await session.send('Network.enable')
  await session.send('Network.setBlockedURLs', { urls })
}

const wait = (plan) => ({ waitUntil: 'load', timeout: PAGE_LIMIT_MS })

async function open (plan, page, url, referer) {
  await page.goto(url, { ...wait(plan), ...(referer ? { referer } : {}) })
}

// Clicks an element and waits for the page that it leads to.
async function clickThrough (plan, page, element) {
  await Promise.all([page.waitForNavigation(wait(plan)), element.click()])
}

// WebDriver BiDi wants whole numbers.
async function wheel (plan, page, down) {
  if (plan.tool === 'puppeteer') await page.mouse.wheel({ deltaY: Math.round(down) })
  else await page.mouse.wheel(0, down)
}

module.exports = {
  WWW, SHOP, PAGE_LIMIT_MS, randomness, sleep, makeHome, removeHome, start, freshPage, firstPage, block, open,
  clickThrough, wheel
}
