// Node's fetch (undici): pages in sequence, three in parallel, a POST with JSON.
'use strict'
const channel = require('node:diagnostics_channel')

let requests = 0
let hellos = 0
channel.subscribe('undici:client:connected', () => { hellos += 1 })
channel.subscribe('undici:client:sendHeaders', () => { requests += 1 })

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const www = 'https://www.example.test'

async function get (url, options) {
  const answer = await fetch(url, options)
  await answer.arrayBuffer()
}

async function main () {
  for (const path of ['/', '/reading/1.html', '/reading/2.html', '/missing']) {
    await get(www + path)
    await pause(600)
  }
  await Promise.all(['/music/1.html', '/music/2.html', '/music/3.html'].map((path) => get(www + path)))
  await get('https://shop.example.test:8443/shop/')
  await get(www + '/api/cart', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ item: 1, count: 2 })
  })
  await pause(500)
  console.log(JSON.stringify({ requests, hellos }))
}

main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1) })
