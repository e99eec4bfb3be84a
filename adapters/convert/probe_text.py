"""A short text of many kinds, on which a conversion is measured unless its user gives a better one."""

PROBE_TEXT = """\
The harbour was quiet when the ferry came in, half an hour late, with fog still lying on the water. Anna counted the
passengers as they left: eleven people, two bicycles and a dog that did not want to walk down the ramp.

Photosynthesis turns light, water and carbon dioxide into sugar and oxygen. In plants it takes place in chloroplasts,
where the pigment chlorophyll absorbs mostly red and blue light, which is why leaves look green.

def moving_average(values, width):
    total = sum(values[:width])
    result = [total / width]
    for old, new in zip(values, values[width:]):
        total += new - old
        result.append(total / width)
    return result

Q: A train leaves at 14:35 and arrives at 17:10. How long does the journey take?
A: Two hours and 35 minutes, that is 155 minutes in all.

SELECT name, COUNT(*) AS orders FROM customers JOIN orders ON orders.customer_id = customers.id
WHERE orders.created_at >= '2024-03-01' GROUP BY name ORDER BY orders DESC LIMIT 10;

Dear Mr. Okafor, thank you for your letter of 12 June. We have checked the invoice (no. 2041-B, EUR 1,284.50) and found
that the discount of 5% was left out. A corrected copy is attached; please ignore the first one.

{"city": "Lisbon", "population": 545796, "river": "Tagus", "bridges": ["25 de Abril", "Vasco da Gama"]}

To make the dough, mix 500 g of flour with 7 g of dry yeast and a teaspoon of salt. Add 320 ml of warm water, knead for
ten minutes, and let it rest under a cloth until it has doubled in size.

Le conseil se réunira mardi prochain à dix heures. Die Sitzung dauert voraussichtlich zwei Stunden.

The court held that the contract was void, because neither party could have known at the time of signing that the
building had already been destroyed by fire.
"""
