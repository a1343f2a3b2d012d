-- First and last event.
SELECT min(time) AS lo, max(time) AS hi FROM requests
