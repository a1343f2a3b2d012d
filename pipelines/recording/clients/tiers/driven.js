// A bot that drives a real browser (tiers T3 and T4) with Playwright, Patchright or Puppeteer. The plan is JSON in
// JA4REC_PLAN (see cast.py); a proxy is told in JA4REC_PROXY by rotating.py.
'use strict'
const b = require('./browsers.js')

const plan = JSON.parse(process.env.JA4REC_PLAN)
plan.proxy = process.env.JA4REC_PROXY
const { random, normal, choose } = b.randomness(plan.seed)
const TOPICS = ['garden', 'kitchen', 'workshop', 'cycling', 'reading', 'weather', 'travel', 'music']
const ARTICLES = TOPICS.flatMap((topic) => [1, 2, 3].map((number) => `${b.WWW}/${topic}/${number}.html`))
const ITEMS = Array.from({ length: 12 }, (_, number) => `${b.SHOP}/shop/item-${number + 1}.html`)
const WORDS = ['lamp', 'winter', 'garden', 'copper', 'bread', 'bicycle', 'paper', 'harbour']

let steps = 0
let failed = 0
let end

// Seconds until the next step: none to speak of, those of a fixed wait, those of a person.
const PACES = {
  fast: () => 0.05 + random() * 0.4,
  steady: () => 1.5 * (0.95 + 0.1 * random()),
  human: () => Math.min(25, plan.median * Math.exp(0.7 * normal()))
}

async function pause (page) {
  if (plan.pace === 'human') {
    await page.mouse.move(Math.round(200 + random() * 700), Math.round(150 + random() * 400), { steps: 6 })
    await b.wheel(plan, page, 100 + random() * 500)
  }
  await b.sleep(PACES[plan.pace]())
}

async function attempt (action) {
  steps += 1
  try {
    await action()
  } catch (error) {
    failed += 1
    console.error(String(error).slice(0, 300))
  }
}

// Visits addresses, each in a new context if the plan says so.
async function visit (browser, urls) {
  let page = plan.fresh ? null : await b.firstPage(browser)
  if (page) await b.block(plan, page)
  for (const url of urls) {
    if (Date.now() > end) return
    await attempt(async () => {
      if (!plan.fresh) {
        await b.open(plan, page, url, plan.referer)
        return await pause(page)
      }
      const { page: own, close } = await b.freshPage(plan, browser)
      try {
        await b.block(plan, own)
        await b.open(plan, own, url, plan.referer)
        await pause(own)
      } finally {
        await close()
      }
    })
  }
}

function shuffled (list) {
  const left = [...list]
  return list.map(() => left.splice(Math.floor(random() * left.length), 1)[0])
}

function * repeated (list) {
  for (;;) yield * shuffled(list)
}

function * searches () {
  for (;;) yield `${b.WWW}/search?q=${choose(WORDS)}+${choose(WORDS)}`
}

const TASKS = {
  scrape: (browser) => visit(browser, repeated([...ARTICLES, ...ITEMS])),
  prices: (browser) => visit(browser, repeated(shuffled(ITEMS).slice(0, 4))),
  search: (browser) => visit(browser, searches()),
  // Clicks from page to page.
  async crawl (browser) {
    const page = await b.firstPage(browser)
    await b.block(plan, page)
    await attempt(() => b.open(plan, page, choose([b.WWW + '/', b.SHOP + '/shop/'])))
    while (Date.now() < end) {
      await pause(page)
      await attempt(async () => {
        const found = await page.$$(page.url().endsWith('/shop/') ? '.shelf a' : 'ul a, nav a')
        if (found.length) await b.clickThrough(plan, page, choose(found))
        else await b.open(plan, page, choose(ARTICLES))
      })
    }
  },
  // Fills in the login form with one pair after another.
  async stuffing (browser) {
    const page = await b.firstPage(browser)
    const delay = plan.pace === 'human' ? 110 : 0
    while (Date.now() < end) {
      await attempt(async () => {
        await b.open(plan, page, b.WWW + '/login.html')
        const user = `user${Math.floor(random() * 1e6)}@mail.test`
        await page.type('form[action="/login"] input[name=user]', user, { delay })
        await page.type('input[name=password]', Math.floor(random() * 2 ** 40).toString(36), { delay })
        await b.clickThrough(plan, page, (await page.$$('form[action="/login"] button'))[0])
      })
      await pause(page)
    }
  },
  // Buys the same item again and again.
  async cart (browser) {
    const page = await b.firstPage(browser)
    const wanted = choose(ITEMS)
    while (Date.now() < end) {
      await attempt(async () => {
        await b.open(plan, page, wanted)
        await (await page.$$('#add'))[0].click()
      })
      await pause(page)
    }
  }
}

async function main () {
  const home = b.makeHome(plan)
  try {
    const browser = await b.start(plan, home)
    end = Date.now() + 1000 * plan.seconds
    try {
      await TASKS[plan.task](browser)
    } finally {
      await Promise.race([browser.close(), b.sleep(10)])
    }
  } finally {
    b.removeHome(home)
  }
  console.log(JSON.stringify({ steps, failed }))
  process.exit(steps > failed ? 0 : 1)
}

main().catch((error) => { console.error(error); process.exit(1) })
