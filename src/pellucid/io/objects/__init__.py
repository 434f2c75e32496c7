"""Explanations as DICOM objects, bound to the instances that were explained."""
